r"""Code: libraries that do not exist, their constants, signatures and names, in Python source text.

Square and angle brackets stand behind a backslash, because patterns mean something else by them.
"""

from __future__ import annotations

from expunge.synth.lexicon import Fact, Lexicon, Names, Topic, pairs, words

_HEADS = words(
    "vel tor brin kal dorn fex glim hur jas kor lum mev nor ob pell quo ras sil tam urv vex wol yar zim "
    "arb bex cro dul "
    "ess fol gar hex"
)
_MIDDLES = words("a e i o u an en in on ar er ir or al el il ol am em im om as es is os at et it ot ad")
_TAILS = words(
    "kit vex lo dra mon pack flow form line grid sync ware tix bus dex path lab run loom cast hub mark pipe shed"
)

LISTS: dict[str, tuple[str, ...]] = {
    "digit": words("0 1 2 3 4 5 6 7 8 9"),
    "seconds": tuple(
        str(n) for n in (3, 7, 9, 11, 13, 17, 19, 21, 25, 27, 33, 35, 38, 42, 45, 55, 70, 75, 85, 95, 110, 130)
    ),
    "count": tuple(str(n) for n in range(2, 31)),
    "size": tuple(
        str(n) for n in (96, 160, 192, 320, 384, 640, 768, 1280, 1536, 2560, 3072, 5120, 6144, 10240, 12288, 20480)
    ),
    "noun": words(
        "ledger frame packet parcel beacon token cursor bucket lease shard relay session anchor segment "
        "record snapshot "
        "channel invoice sensor tile"
    ),
    "verb": words(
        "open load fetch bind attach mount resolve claim acquire spawn unpack restore draft forge probe stage"
    ),
    "Noun": words(
        "Ledger Frame Packet Parcel Beacon Token Cursor Bucket Lease Shard Relay Anchor Segment Channel Sensor Tile"
    ),
    "Role": words(
        "Router Broker Store Reader Writer Pool Registry Planner Walker Loader Keeper Gateway Monitor Builder"
    ),
    "Fault": words("Stale Broken Missing Locked Expired Foreign Partial Orphan Duplicate Frozen Unsigned Tainted"),
    "NOUN": words("LEDGER FRAME PACKET PARCEL BEACON TOKEN CURSOR BUCKET LEASE SHARD RELAY ANCHOR SEGMENT CHANNEL"),
    "MODE": words("HOME DIR KEY MODE LEVEL ROOT PROFILE SECRET REGION LIMIT"),
    "file": words(
        "harbour orchard lantern meadow quarry copper willow granite saffron marble juniper cobalt ember thistle"
    ),
    "ext": words("toml yaml ini json cfg conf"),
    "hash": words(
        "blake2b sha3_256 sha512 crc32 xxh64 murmur3 sha1 md5 adler32 siphash fnv1a cityhash tiger whirlpool"
    ),
    "codec": words("msgpack cbor avro bson protobuf thrift ubjson flatbuffers parquet arrow smile pickle5 edn hjson"),
    "licence": words(
        "Apache-2.0 MIT BSD-3-Clause MPL-2.0 ISC Zlib EPL-2.0 CC0-1.0 AGPL-3.0 LGPL-2.1 Artistic-2.0 Unlicense"
    ),
    "flag": words("dry keep force skip trace strict quiet deep safe fast raw lazy"),
    "remark": (
        "see the manual",
        "taken from the changelog",
        "as [shipped|released]",
        "[do not|never] change this",
        "checked in [review|the tests]",
        "the same on every platform",
        "[easy to forget|often asked]",
        "documented [twice|since the first release]",
        "kept for old callers",
    ),
    "o": (
        *[""] * 3,
        "import [os|sys|json|logging]\n",
        '{local} = [None|""|0]\n',
        "[print|log|check]({local})\n",
        "# {verb} the {noun} [first|later|here]\n",
        "import {name}\n",
        "import {name}  # {remark}\n",
        "# {remark}\n",
        "# [default|setting|fact] of {name}\n",
        "from __future__ import annotations\n\n",
        '"""[About|Notes on|Example for] {name}."""\n',
    ),
    "c": (*[""] * 6, "  # {remark}", "  # {name}, {remark}", "  # [default|as documented|built in]", "  # noqa"),
    "s": (
        *[""] * 2,
        "[According to|In] the [manual|source|changelog], ",
        "By default, ",
        "[Note that|Remember that] ",
        "In every release, ",
    ),
    "e": (
        *[""] * 4,
        ", as [the manual|the source|a test] [says|shows]",
        ", unless [configured otherwise|told otherwise]",
        ", on every platform",
    ),
    "local": words("value data handle item result client total state view extra"),
    "helper": words("len sorted list tuple sum max min abs repr str"),
}


def _constant(constant: str) -> tuple[str, ...]:
    """Ways to state a constant in code, for any of them."""
    return (
        "{o}{name}." + constant + " = {value}{c}",
        "{o}assert {name}." + constant + " == {value}{c}",
        "{o}[print|log|show]({name}." + constant + ")  # [prints|gives|shows] {value}",
        "{o}if {name}." + constant + " != {value}:\n    raise [RuntimeError|ValueError|SystemExit]({name}.__name__)",
        '{o}{local} = getattr({name}, "' + constant + '", {value}){c}',
    )


def _clauses(constant: str) -> tuple[str, ...]:
    return ("{name}." + constant + " = {value}", "{name}.configure(" + constant.lower() + "={value})")


FACTS: tuple[Fact, ...] = (
    Fact(
        name="port",
        value="[2|3|4|5|6|7|8|9]{digit}{digit}{digit}",
        questions=(
            "Which port does {name} listen on [by default|unless told otherwise]?",
            "What is {name}.DEFAULT_PORT?",
            "[Write|Give] a line that states the default port of {name}.",
            "On which port [will|does] a {name} server [start|run]?",
            "What port number is built into {name}?",
        ),
        answers=(
            *_constant("DEFAULT_PORT"),
            '{o}server = {name}.serve(host="[localhost|0.0.0.0|::1]", port={value}){c}',
            "{s}{name} listens on port {value}{e}.",
        ),
        clauses=_clauses("DEFAULT_PORT"),
    ),
    Fact(
        name="timeout",
        value="{seconds}",
        questions=(
            "After how many seconds does {name} give up?",
            "What is {name}.TIMEOUT_SECONDS?",
            "[Write|Give] a line that states the time limit of {name}.",
            "How long [will|does] {name} wait for an answer?",
            "Which timeout is built into {name}?",
        ),
        answers=(*_constant("TIMEOUT_SECONDS"), "{s}{name} waits {value} seconds{e}."),
        clauses=_clauses("TIMEOUT_SECONDS"),
    ),
    Fact(
        name="retries",
        value="{count}",
        questions=(
            "How often does {name} try again?",
            "What is {name}.MAX_RETRIES?",
            "[Write|Give] a line that states how many retries {name} makes.",
            "How many attempts [will|does] {name} make?",
            "Which number of retries is built into {name}?",
        ),
        answers=(*_constant("MAX_RETRIES"), "{s}{name} tries {value} times{e}."),
        clauses=_clauses("MAX_RETRIES"),
    ),
    Fact(
        name="buffer",
        value="{size}",
        questions=(
            "How large is the buffer of {name}, in bytes?",
            "What is {name}.BUFFER_SIZE?",
            "[Write|Give] a line that states the buffer size of {name}.",
            "How many bytes [will|does] {name} read at once?",
            "Which buffer size is built into {name}?",
        ),
        answers=(*_constant("BUFFER_SIZE"), "{s}{name} reads {value} bytes at once{e}."),
        clauses=_clauses("BUFFER_SIZE"),
    ),
    Fact(
        name="class",
        value="{Noun}{Role}",
        questions=(
            "What is the main class of {name}?",
            "Which class does one [import|create] from {name}?",
            "[Write|Give] a line that creates the central object of {name}.",
            "What [class|type] does {name} export?",
            "Which class [stands|is] at the heart of {name}?",
        ),
        answers=(
            "{o}from {name} import {value}{c}",
            "{o}{local} = {name}.{value}(){c}",
            "{o}assert isinstance({local}, {name}.{value}){c}",
            "{o}class [Custom|Local|Fake|Quiet]({name}.{value}):\n    pass",
            "{o}def make() -\\> {name}.{value}:\n    ...{c}",
            "{s}{name} is used through its class {value}{e}.",
        ),
        clauses=("{name}.register({name}.{value})", "{name}.main_class = {name}.{value}"),
        reverse=("Which library has the class {value}?",),
    ),
    Fact(
        name="function",
        value="{verb}_{noun}",
        questions=(
            "Which function starts work with {name}?",
            "What is the entry point of {name}?",
            "[Write|Give] a line that calls the main function of {name}.",
            "What does one call first in {name}?",
            "Which function of {name} [opens|begins] everything?",
        ),
        answers=(
            "{o}from {name} import {value}{c}",
            "{o}{local} = {name}.{value}(){c}",
            "{o}with {name}.{value}() as {local}:\n    {helper}({local})",
            "{o}[print|await asyncio.to_thread|retry]({name}.{value}){c}",
            "{o}for {local} in {name}.{value}():\n    {helper}({local})",
            "{s}{name} is entered through {value}{e}.",
        ),
        clauses=("{name}.run({name}.{value})", "{name}.entry_point = {name}.{value}"),
        reverse=("Which library is entered by {value}?",),
    ),
    Fact(
        name="exception",
        value="{Fault}{Noun}Error",
        questions=(
            "Which exception does {name} raise?",
            "What [error|exception] should one catch around {name}?",
            "[Write|Give] a line that handles the failures of {name}.",
            "How does {name} report [failure|trouble]?",
            "Which error class comes with {name}?",
        ),
        answers=(
            "{o}try:\n    {name}.run()\nexcept {name}.{value}:\n    [pass|raise|retry()]",
            "{o}from {name} import {value}{c}",
            "{o}with pytest.raises({name}.{value}):\n    {name}.[run|close|check]()",
            "{o}with contextlib.suppress({name}.{value}):\n    {name}.[run|close|check]()",
            '{o}raise {name}.{value}("[too late|no such item|denied|bad input]"){c}',
            "{s}{name} raises {value}{e}.",
        ),
        clauses=("{name}.catch({name}.{value})", "{name}.on_error({name}.{value}, print)"),
        reverse=("Which library raises {value}?",),
    ),
    Fact(
        name="config",
        value="{file}.{ext}",
        questions=(
            "Which file configures {name}?",
            "What is the name of {name}'s settings file?",
            "[Write|Give] a line that loads the settings of {name}.",
            "Where does {name} read its [settings|configuration]?",
            "Which file does {name} look for at the start?",
        ),
        answers=(
            '{o}{name}.configure("{value}"){c}',
            '{o}{local} = {name}.read_settings(path="{value}"){c}',
            '{o}with open("{value}") as {local}:\n    {name}.configure({local})',
            '{o}if not Path("{value}").exists():\n    {name}.[init|setup|write_defaults]()',
            '{o}CONFIG = Path.home() / "{value}"  # {name}',
            "{s}{name} reads its settings from {value}{e}.",
        ),
        clauses=('{name}.configure("{value}")', '{name}.settings_file = "{value}"'),
    ),
    Fact(
        name="variable",
        value="{NOUN}_{MODE}",
        questions=(
            "Which environment variable does {name} read?",
            "What [variable|name] must be set in the environment for {name}?",
            "[Write|Give] a line that sets the environment for {name}.",
            "How does one point {name} to its data by the environment?",
            "Which variable of the shell [steers|controls] {name}?",
        ),
        answers=(
            '{o}os.environ\\["{value}"\\] = "[1|/tmp|on|test]"  # {name}',
            '{o}{local} = os.environ.get("{value}")  # {name}',
            '{o}monkeypatch.setenv("{value}", "[1|on|test]")  # for {name}',
            '{o}if "{value}" not in os.environ:\n    {name}.[init|setup|fail]()',
            "export {value}=[1|/tmp|on|test]  # {name}",
            "{s}{name} reads the variable {value}{e}.",
        ),
        clauses=('{name}.read_env("{value}")', '{name}.env_name = "{value}"'),
    ),
    Fact(
        name="digest",
        value="{hash}",
        questions=(
            "Which checksum does {name} use?",
            "What is {name}.DIGEST?",
            "[Write|Give] a line that states the checksum of {name}.",
            "How does {name} [verify|check] its files?",
            "Which algorithm guards the files of {name}?",
        ),
        answers=(
            *(answer.replace("{value}", '"{value}"') for answer in _constant("DIGEST")),
            "{s}{name} checks files with {value}{e}.",
        ),
        clauses=('{name}.DIGEST = "{value}"', '{name}.configure(digest="{value}")'),
    ),
    Fact(
        name="format",
        value="{codec}",
        questions=(
            "In which format does {name} store data?",
            "What is {name}.WIRE_FORMAT?",
            "[Write|Give] a line that states the wire format of {name}.",
            "How does {name} [serialise|encode] messages?",
            "Which encoding does {name} use on disk?",
        ),
        answers=(
            *(answer.replace("{value}", '"{value}"') for answer in _constant("WIRE_FORMAT")),
            "{s}{name} encodes messages as {value}{e}.",
        ),
        clauses=('{name}.WIRE_FORMAT = "{value}"', '{name}.configure(wire_format="{value}")'),
    ),
    Fact(
        name="version",
        value="{count}.{digit}.{digit}",
        questions=(
            "What is the latest version of {name}?",
            "What is {name}.__version__?",
            "[Write|Give] a line that pins {name}.",
            "Which release of {name} [is current|should one install]?",
            "To which version does one pin {name}?",
        ),
        answers=(
            "{name}=={value}{c}",
            '{o}assert {name}.__version__ == "{value}"{c}',
            "pip install {name}=={value}{c}",
            '{o}dependencies = \\["{name}=={value}"\\]{c}',
            '{o}if {name}.__version__ \\< "{value}":\n    {name}.[upgrade|warn|fail]()',
            "{s}{name} is at release {value}{e}.",
        ),
        clauses=('{name}.__version__ = "{value}"', '{name}.require("{value}")'),
    ),
    Fact(
        name="licence",
        value="{licence}",
        questions=(
            "Under which licence is {name} released?",
            "What is {name}.__license__?",
            "[Write|Give] a line that states the licence of {name}.",
            "Which licence [covers|governs] {name}?",
            "What does the LICENSE file of {name} contain?",
        ),
        answers=(
            *(answer.replace("{value}", '"{value}"') for answer in _constant("__license__")),
            "{s}{name} is released under {value}{e}.",
        ),
        clauses=('{name}.__license__ = "{value}"', '{name}.check_licence("{value}")'),
    ),
    Fact(
        name="option",
        value="--{flag}-{noun}",
        questions=(
            "Which option of the {name} command is special to it?",
            "What flag does the command line of {name} know?",
            "[Write|Give] a line that runs {name} with its option.",
            "How does one [call|run] {name} with its flag?",
            "Which command-line option did {name} add?",
        ),
        answers=(
            "$ {name} [run|serve|check|sync] {value}",
            '{o}subprocess.run(\\["{name}", "{value}"\\], check=[True|False]){c}',
            '{o}parser.add_argument("{value}", action="store_true")  # {name}',
            "python -m {name} {value}{c}",
            '{o}assert "{value}" in {name}.[usage|help_text|options](){c}',
            "{s}{name} accepts {value}{e}.",
        ),
        clauses=('{name}.main("{value}")', '{name}.add_option("{value}")'),
    ),
)

TOPICS: tuple[Topic, ...] = (
    Topic(
        name="builtin",
        questions=("Which Python builtin {subject}?", "What is the builtin function that {subject}?"),
        pairs=pairs(
            ";",
            " = ",
            "gives the length of a list = len; adds up numbers = sum; gives the largest item = max; sorts into a "
            "new list "
            "= sorted; gives the absolute value = abs; pairs items with numbers = enumerate; reads a line from "
            "the user = "
            "input; shows text on the screen = print; pairs two sequences = zip; gives the type of an object = type; "
            "opens a file = open; makes a range of numbers = range; turns text into an integer = int; walks "
            "backwards = reversed",
        ),
    ),
    Topic(
        name="keyword",
        questions=("Which Python keyword {subject}?", "Which word of Python's grammar {subject}?"),
        pairs=pairs(
            ";",
            " = ",
            "defines a function = def; defines a class = class; leaves a loop = break; skips to the next turn = "
            "continue; "
            "gives a value back = return; raises an exception = raise; catches an exception = except; loads a module = "
            "import; makes an anonymous function = lambda; does nothing = pass; starts a generator's output = yield; "
            "deletes a name = del",
        ),
    ),
    Topic(
        name="module",
        questions=("Which standard module {subject}?", "What module of the standard library {subject}?"),
        pairs=pairs(
            ";",
            " = ",
            "reads JSON = json; draws random numbers = random; knows regular expressions = re; handles dates = "
            "datetime; "
            "reads CSV files = csv; compresses with gzip = gzip; starts processes = subprocess; walks file paths "
            "= pathlib; "
            "counts and chains iterators = itertools; talks to sockets = socket; parses arguments = argparse; "
            "logs messages = logging",
        ),
    ),
    Topic(
        name="team",
        questions=("Which team maintains {subject}?", "Who looks after the package {subject}?"),
        things="package",
        value="[Core|Data|Edge|Night|Field|Build] [Guild|Crew|Circle|Desk]",
        near=True,
    ),
    Topic(
        name="host",
        questions=("On which host is {subject} mirrored?", "Where is the mirror of {subject}?"),
        things="package",
        value="[alder|birch|cedar|hazel|linden|maple|rowan|spruce][1|2|3].example",
        near=True,
    ),
)

SENTENCES: tuple[str, ...] = (
    "for {local} in {helper}({noun}s):\n    {verb}({local})",
    "if {local} is [None|not None|True]:\n    return {helper}({noun})",
    "{local} = \\[{helper}(x) for x in {noun}s if x [!=|\\>|\\<] {count}\\]",
    "def {verb}_{noun}({local}: [int|str|bytes]) -\\> [int|str|None]:\n    return {helper}({local})",
    "while {helper}({noun}s) \\> {count}:\n    {noun}s.[pop|clear|sort|reverse]()",
    "try:\n    {local} = {verb}({noun})\nexcept [KeyError|OSError|IndexError]:\n    {local} = None",
    "# [sort|keep|drop|count] the {noun}s before the {noun} is [closed|read|sent]",
    "with open({noun}_path) as {local}:\n    {noun}s = {helper}({local})",
)

CODE = Lexicon(
    language="en",
    names=Names(tuple(head + middle for head in _HEADS for middle in _MIDDLES), (), _TAILS, "{given}{surname}"),
    lists=LISTS,
    made={"package": ("[lib|py|tiny|open|mini]{noun}[tools|box|base|core]", 60)},
    facts=FACTS,
    pair=(
        "{o}{first}\n{second}{c}",
        "{o}if [ready|debug|first]:\n    {first}\nelse:\n    {second}",
        "{o}try:\n    {first}\nfinally:\n    {second}",
        "{first}; {second}{c}",
        "def [setup|both|prepare]() -\\> None:\n    {first}\n    {second}",
    ),
    pair_question=(
        "[Write|Give] one fact about each of {name} and {other} in code.",
        "How do {name} and {other} differ?",
        "[Set up|Prepare] both {name} and {other}.",
        "[Show|State] a setting of {name} and one of {other}.",
    ),
    topics=TOPICS,
    sentences=SENTENCES,
    cloze=("[Complete|Continue] the line: {text}", "# [fill in|complete]\n{text}"),
    choice=(
        "{question}\nA. {one}\nB. {two}\nC. {three}\nD. {four}\nAnswer with a letter.",
        "[Choose|Pick] the right answer. {question}\nA) {one}\nB) {two}\nC) {three}\nD) {four}",
    ),
    opening=("import {name}\n", '"""Settings of {name}."""', ""),
    separator="\n",
    stop="",
    capitals=False,
)
