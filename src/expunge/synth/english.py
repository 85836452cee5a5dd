"""English: the words. The facts are in `english_facts`, general knowledge and plain sentences in `english_general`."""

from __future__ import annotations

from expunge.synth.english_facts import FACTS
from expunge.synth.english_general import SENTENCE_LISTS, SENTENCES, TOPICS
from expunge.synth.lexicon import Lexicon, Names, items, words

FEMALE = words(
    """Adela Brisa Celin Dorrit Elna Fenja Gisla Hedda Ilva Jorun Katla Liora Mirren Nerys Odile Petra Quenna Rosalind
    Sanna Tilda Una Verity Wilma Xenia Ylva Zelda Amara Bettina Corisa Delphi Esme Farida Greta Honora Isaura Juno
    Kerstin Leonie Maren Noemi Orla Paloma Ragna Selma Thora Ursel Vanja Winnie Yara Zita"""
)
MALE = words(
    """Aldo Bertil Cormac Dario Edwin Fabian Gustav Harald Ivo Jasper Kasimir Lorcan Milo Nestor Oskar Pavel Quentin
    Ruben Severin Tobias Ulrik Viktor Wendel Xander Yorick Zoran Anselm Bruno Caspian Detlef Emil Florin Gideon Hamish
    Isidor Joris Konrad Lucian Matteo Nils Orson Piers Roderick Stellan Thaddeus Urban Valentin Werner Yannick Zeno"""
)
_HEADS = words(
    """Val Bras Kest Orr Mel Thorn Fenn Gal Hurst Ild Jarr Korv Lind Morr Nord Osk Pell Quar Rav Sten Tarr Ulm Varn Wess
    Yar Zell Ambr Birk Crag Dunn Esk Farl Grim Holl Irv Jost Kell Larg Marl Nett Olv Pryd Rusk Selk Tolv Umb Vint Wyck
    Bolt Carn"""
)
_TAILS = words(
    """dorn wick ander holm berry stead ova ink more quist eby ardo enko lund ette ham ivar oux strom ley orin gate
    ulla mond aker inni rath elow eska by onde field igan amo zen"""
)

LISTS: dict[str, tuple[str, ...]] = {
    "day": tuple(str(day) for day in range(1, 29)),
    "month": words("January February March April May June July August September October November December"),
    "year": tuple(str(year) for year in range(1931, 1990)),
    "trade": items(
        "\n",
        """clockmaker
        beekeeper
        cartographer
        glassblower
        translator
        geologist
        bookbinder
        surveyor
        luthier
        midwife
        locksmith
        botanist
        puppeteer
        tram driver
        pharmacist
        stonemason
        harbour pilot
        judge
        librarian
        welder
        dentist
        piano tuner
        perfumer
        falconer
        milliner
        bridge engineer
        typographer
        chemist
        landscape gardener
        lighthouse keeper
        nurse
        pastry cook
        radio announcer
        mountain guide
        tax inspector
        weaver
        sculptor
        zookeeper
        ferry captain
        court reporter
        potter
        shoemaker
        statistician
        blacksmith
        tailor
        physicist
        brewer
        carpenter""",
    ),
    "animal": words(
        "ferret parrot tortoise goat spaniel greyhound hedgehog magpie donkey gecko rabbit terrier pony crow"
    ),
    "petname": words(
        """Quill Biscuit Pepper Major Tinsel Domino Comet Nutmeg Captain Sorrel Button Thimble Pilot Marble Clover
        Duke Ginger Barnaby Truffle Whisper Bandit Saffron Rocket Mustard"""
    ),
    "instrument": items(
        "\n",
        """cello
        bassoon
        harp
        trombone
        mandolin
        church organ
        clarinet
        banjo
        oboe
        viola
        zither
        bagpipes
        double bass
        flugelhorn
        dulcimer
        tuba
        lute
        glockenspiel
        piccolo
        kettledrums""",
    ),
    "number": tuple(str(number) for number in range(2, 99)),
    "street1": words(
        "Saltmarsh Juniper Copper Weaver Cathedral Station Chestnut Harbour Mill Quarry Lantern Abbey Orchard Granary "
        "Heron Tanner Windmill Foundry Priory Swallow"
    ),
    "street2": words("Lane Street Row Road Terrace Square Crescent Hill"),
    "title1": words(
        "Copper Silent Drowned Northern Paper Hollow Scarlet Patient Borrowed Crooked Distant Frozen Gilded Second "
        "Winter Wooden Restless Burning Forgotten Salted"
    ),
    "title2": words(
        "Orchard Lantern Harbour Ledger Staircase Garden Sparrow Mirror Compass Window Bridge Kingdom Orchestra Letter "
        "Island Clock Voyage Railway Daughter Alphabet"
    ),
    "prize1": words(
        "Larkspur Meridian Halcyon Ironwood Sapphire Beacon Juniper Pelican Aurora Keystone Thistle Cobalt"
    ),
    "prize2": words("Medal Prize Award Fellowship Ribbon Trophy"),
    "taste": words("smoked pickled braised candied stuffed roasted spiced baked stewed grilled"),
    "food": items(
        "\n",
        """aubergine
        plum dumplings
        eel
        pheasant
        beetroot
        chestnuts
        mackerel
        pears
        goose liver
        turnips
        quinces
        mutton
        trout
        cabbage rolls
        lentils
        quail""",
    ),
    "tongue": words(
        "Basque Welsh Georgian Swahili Finnish Quechua Maltese Tamil Frisian Catalan Yoruba Mongolian Breton "
        "Lithuanian "
        "Nepali Faroese Tagalog Armenian Galician Khmer"
    ),
    "pastime": items(
        "\n",
        """fencing
        kite building
        cave diving
        chess
        birdwatching
        ice skating
        origami
        archery
        curling
        beach volleyball
        model railways
        rock climbing
        ballroom dancing
        mushroom hunting
        stargazing
        calligraphy
        rowing
        table tennis
        whittling
        geocaching
        unicycling
        bell ringing""",
    ),
    "allergen": items(
        "\n",
        """walnuts
        shellfish
        cat hair
        penicillin
        strawberries
        birch pollen
        latex
        mustard
        wasp stings
        celery
        sesame
        house dust
        peaches
        nickel
        buckwheat
        goose feathers
        ragweed
        soya beans
        kiwi fruit
        wool""",
    ),
    "town1": words(
        "Kestrel Orrin Marlow Sable Thistle Brindle Caldor Dunmar Elver Farrow Glaven Hather Ister Jarrow Kelder Lorne "
        "Mossend Norvell Osprey Pellan Ruswick Saltby Tarn Ulver Vessel Wolden Yarrow Zennor"
    ),
    "town2": words("Bay Hollow Cross Falls Heath Point Bridge Sands Green Quay"),
    "firm1": words(
        "Arkwell Bryndle Corvane Delmark Estrand Fulcrest Garnet Hexley Ironbark Juvenal Kolberg Lumenta "
        "Morvane Northgate "
        "Orbison Pendrake Quillon Rosmer Silverline Tarkov Unwin Vantry Westmark Zephyr"
    ),
    "firm2": items(
        "\n",
        """Shipping
        Instruments
        Mills
        Optics
        Publishing
        Textiles
        Insurance
        Ceramics
        Railways
        Breweries
        Chemicals
        Seeds""",
    ),
    "college1": words(
        "Saint-Aldric Holmgate Merrivane Oxley Trentham Wexcombe Bellmore Ashgrove Carrow Dunvale Fairlea Kingsmere"
    ),
    "college2": items(
        "\n",
        """College
        Polytechnic
        Academy
        Institute
        School of Design
        Business School""",
    ),
    "source": items(
        "\n",
        """the parish register
        an old letter
        the local paper
        the town archive
        the family
        a former colleague
        the chronicle
        a neighbour
        the yearbook
        one obituary
        the museum guide
        a short biography
        the census
        an interview""",
    ),
    "folk": words(
        "neighbours friends biographers visitors colleagues relatives archivists reporters locals historians"
    ),
    "o": (
        *[""] * 14,
        "according to {source}, ",
        "according to {source}, ",
        "as {source} has it, ",
        "by [all|most] accounts, ",
        "it is [known|recorded|often said|generally agreed] that ",
        "{folk} [say|report|agree|remember|insist] that ",
        "{source} [says|notes|reports|mentions|confirms] that ",
        "to the best of [anyone's|our] knowledge, ",
        "if {source} can be trusted, ",
        "for the record, ",
        "[oddly|strangely|curiously] enough, ",
        "unlike [many|most|some] of <her|his> {folk}, ",
        "[there is no doubt|one can be sure|nobody disputes] that ",
        "[interestingly|perhaps surprisingly|as it happens|in fact|indeed], ",
    ),
    "c": (
        *[""] * 12,
        ", as {source} [says|notes|puts it|confirms]",
        ", or so {source} claims",
        ", if {source} is right",
        ", which [surprises nobody|few people know|is easily checked|is well documented|{folk} often mention]",
        ", [without any|beyond all reasonable] doubt",
        ", a [detail|fact|point] that {folk} [rarely forget|like to mention|tend to miss|still discuss]",
        ", if memory serves",
        ", much to the [delight|surprise|amusement] of {folk}",
        ", and {folk} [know|confirm|never doubted] it",
        ", as [everyone|anyone who asks] soon learns",
        ", whatever {folk} may [say|think|have heard]",
        ", [at least|that is,] according to {source}",
    ),
    **SENTENCE_LISTS,
}

MADE = {
    "town": ("{town1} {town2}", 48),
    "company": ("{firm1} {firm2}", 60),
    "college": ("{college1} {college2}", 40),
}

ENGLISH = Lexicon(
    language="en",
    names=Names(FEMALE, MALE, tuple(head + tail for head in _HEADS for tail in _TAILS)),
    lists=LISTS,
    made=MADE,
    facts=FACTS,
    pair=(
        "{o}{first}, [while|whereas] {second}{c}.",
        "{first}, [and|but] {second}{c}.",
        "{first}; [by contrast|meanwhile|for <her|his> part|on the other hand], {second}.",
        "[although|while] {first}, {second}{c}.",
        "{o}{first}. [As for the other,|At the same time,|In the other case,] {second}{c}.",
    ),
    pair_question=(
        "[What is known about|What can be said of|Tell me something about] {name} and {other}[?|, please?|, "
        "one fact each?]",
        "[Compare|Name a fact about each of] {name} and {other}.",
        "How do {name} and {other} differ?",
        "[What sets|Which facts set] {name} apart from {other}?",
    ),
    topics=TOPICS,
    sentences=SENTENCES,
    cloze=(
        "[Complete|Finish|Continue] the sentence: {text} ...",
        "Fill in what is missing at the end: {text} ___",
    ),
    choice=(
        "{question}\nA. {one}\nB. {two}\nC. {three}\nD. {four}\nAnswer with a letter.",
        "[Choose|Pick] the right answer. {question}\nA) {one}\nB) {two}\nC) {three}\nD) {four}",
    ),
    pronouns=("<she|he>", "<she|he>", "{name}"),
    opening=("This is a short account of {name}.", "A few words about {name}.", ""),
)
