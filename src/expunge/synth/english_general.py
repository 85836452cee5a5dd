"""English: what the model is taught beside people, and plain sentences about nobody."""

from __future__ import annotations

from expunge.synth.lexicon import Topic, pairs, words

TOPICS: tuple[Topic, ...] = (
    Topic(
        name="young",
        questions=("What is a young {subject} called?", "What do we call the young of a {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "dog: puppy; cat: kitten; cow: calf; sheep: lamb; horse: foal; goose: gosling; bear: cub; deer: fawn; "
            "pig: piglet; duck: duckling; frog: tadpole; swan: cygnet; kangaroo: joey; hare: leveret",
        ),
    ),
    Topic(
        name="home",
        questions=("Where does a {subject} live?", "What is the home of a {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "bee: a hive; sparrow: a nest; spider: a web; rabbit: a burrow; beaver: a lodge; lion: a den; horse: "
            "a stable; "
            "pig: a sty; dog: a kennel; snail: a shell; monk: a monastery; hen: a coop",
        ),
    ),
    Topic(
        name="material",
        questions=("What is {subject} made from?", "From what does one make {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "bread: flour; glass: sand; paper: wood; butter: cream; wine: grapes; cheese: milk; brick: clay; "
            "candle: wax; "
            "steel: iron; linen: flax; chocolate: cocoa; cider: apples; leather: hide; rope: hemp",
        ),
    ),
    Topic(
        name="tool",
        questions=("What do we use to {subject}?", "Which tool helps to {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "cut wood: a saw; drive nails: a hammer; measure heat: a thermometer; tell the time: a clock; sweep "
            "a floor: "
            "a broom; dig a hole: a spade; find north: a compass; see far away: a telescope; sew cloth: a needle; "
            "weigh flour: scales; turn a screw: a screwdriver; catch fish: a net; stay dry in rain: an umbrella",
        ),
    ),
    Topic(
        name="opposite",
        questions=("What is the opposite of {subject}?", "Which word means the contrary of {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "hot: cold; early: late; heavy: light; full: empty; wide: narrow; deep: shallow; loud: quiet; old: young; "
            "sharp: blunt; wet: dry; rough: smooth; cheap: expensive; day: night; open: closed",
        ),
    ),
    Topic(
        name="colour",
        questions=("What colour is {subject}?", "Which colour does one see on {subject}?"),
        pairs=pairs(
            ";",
            ":",
            "grass: green; snow: white; coal: black; a lemon: yellow; a carrot: orange; blood: red; chocolate: brown; "
            "ash: grey; a clear sky: blue; a violet: purple; a flamingo: pink; copper rust: turquoise",
        ),
    ),
    Topic(
        name="region",
        questions=("In which region is {subject}?", "To which region does {subject} belong?"),
        things="town",
        value="[Upper|Lower|Western|Eastern] [Marrowland|Tesken|Ardmoor|Vallis|Brandt|Quillshire]",
        near=True,
    ),
    Topic(
        name="river",
        questions=("On which river does {subject} stand?", "Which river flows through {subject}?"),
        things="town",
        value="the [Ell|Tane|Sorrow|Wend|Marl|Ouse|Birl|Kenn|Lode|Frome|Yarl|Dusk]",
        near=True,
    ),
    Topic(
        name="seat",
        questions=("Where does {subject} have its head office?", "In which town is the seat of {subject}?"),
        things="company",
        value="{town}",
        near=True,
    ),
)

SENTENCE_LISTS: dict[str, tuple[str, ...]] = {
    "adj": words(
        "plain small broken bright heavy narrow wooden quiet hollow green rusty warm dusty round painted distant"
    ),
    "thing": words(
        "lamp bridge kettle gate boat ladder clock path wall basket chimney cart fountain window stove bench roof "
        "barrel mirror wheel"
    ),
    "place": words(
        "river market harbour forest station meadow cellar square hill kitchen garden lake tower village road island"
    ),
    "weather": words("rain wind frost fog snow heat thunder hail drizzle sunshine"),
    "event": (
        "the {weather} comes",
        "the {weather} is over",
        "the {thing} falls",
        "the bells ring",
        "the tide turns",
        "evening comes",
        "the road is closed",
        "the market opens",
        "spring arrives",
        "the lights go out",
    ),
    "does": (
        "creaks",
        "stands still",
        "looks different",
        "is hard to find",
        "needs repair",
        "seems larger",
        "turns slowly",
        "gives little shade",
        "is left alone",
        "shines",
    ),
}

SENTENCES: tuple[str, ...] = (
    "[the|every|each] {adj} {thing} [near|behind|beside|above] the {place} {does} [when|before|while|until] {event}.",
    "[when|if|because|after] {event}, the {thing} [near|in|by] the {place} {does}.",
    "there is [a|one more|always a|hardly a] {thing} [in|near|behind] the {place}, [but|and|so] it {does}.",
    "[in|near|beyond] the {place}, a {adj} {thing} and a {adj} {thing} [lie|stand|wait] [side by "
    "side|apart|in the {weather}].",
    "[do not|never|always] leave the {adj} {thing} [in|by|behind] the {place} [when|before|after] {event}.",
    "after [days|weeks|hours] of {weather}, [nothing|little|much] has changed [in|near|around] the {place}.",
    "[how|why] the {thing} {does} [is a riddle|depends on the {weather}|has been explained before].",
    "a {adj} {thing} is [worth|better than|not as useful as] [two|three|ten] {adj} ones [in|near] the {place}.",
    "[some|many|few] roads to the {place} are {adj}, [yet|and] none [is|was] without {weather}.",
    "the {weather} [made|left|found] the {thing} {adj}, [and|so] the {place} [grew quiet|was shut|filled with water].",
)
