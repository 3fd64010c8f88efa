"""The vocabulary of the scenes: kinds, colours, label words and every prompt, in two languages."""

from dataclasses import dataclass

RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (202, 38, 34),
    "blue": (34, 82, 196),
    "green": (36, 148, 66),
    "yellow": (238, 200, 28),
    "white": (240, 240, 236),
    "black": (30, 30, 34),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)
CHINESE_COLOURS: dict[str, str] = {
    "red": "红色",
    "blue": "蓝色",
    "green": "绿色",
    "yellow": "黄色",
    "white": "白色",
    "black": "黑色",
}

WORDS: tuple[str, ...] = (
    "EXIT",
    "SAFE",
    "GAS",
    "WATER",
    "FIRE",
    "PUSH",
    "PULL",
    "STOP",
    "OPEN",
    "SHUT",
    "HOT",
    "COLD",
    "KEY",
    "LIFT",
    "POWER",
    "DANGER",
    "ALARM",
    "VALVE",
    "ROOF",
    "TOOL",
    "MAIN",
    "TEST",
    "WASTE",
    "STAFF",
)
NUMBERS: tuple[str, ...] = tuple(str(number) for number in range(10, 100))
MOST_COUNTED = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of equipment is named and how its state is asked after, in both languages."""

    english: str
    plural: str
    chinese: str
    measure: str
    order_english: str
    order_chinese: str
    coloured: bool


EQUIPMENT: dict[str, Kind] = {
    "extinguisher": Kind(
        "fire extinguisher",
        "fire extinguishers",
        "灭火器",
        "个",
        "Is the fire extinguisher in its bracket?",
        "灭火器在支架上吗？",
        True,
    ),
    "helmet": Kind(
        "hard hat",
        "hard hats",
        "安全帽",
        "顶",
        "Is the hard hat the right way up?",
        "安全帽是正放的吗？",
        True,
    ),
    "cone": Kind(
        "traffic cone",
        "traffic cones",
        "路锥",
        "个",
        "Is the traffic cone standing?",
        "路锥是立着的吗？",
        True,
    ),
    "ladder": Kind(
        "ladder",
        "ladders",
        "梯子",
        "个",
        "Is the ladder standing?",
        "梯子是立着的吗？",
        True,
    ),
    "outlet": Kind(
        "power outlet",
        "power outlets",
        "插座",
        "个",
        "Is the power outlet intact?",
        "插座是完好的吗？",
        False,
    ),
    "fusebox": Kind(
        "fuse box",
        "fuse boxes",
        "配电箱",
        "个",
        "Is the fuse box closed?",
        "配电箱是关着的吗？",
        True,
    ),
    "sign": Kind(
        "exit sign",
        "exit signs",
        "出口标志",
        "个",
        "Is the exit sign lit?",
        "出口标志是亮着的吗？",
        False,
    ),
    "detector": Kind(
        "smoke detector",
        "smoke detectors",
        "烟感器",
        "个",
        "Is the smoke detector fixed in place?",
        "烟感器是装好的吗？",
        False,
    ),
    "kit": Kind(
        "first-aid box",
        "first-aid boxes",
        "急救箱",
        "个",
        "Is the first-aid box closed?",
        "急救箱是关着的吗？",
        True,
    ),
}
LABEL = "label"
KINDS: tuple[str, ...] = (*EQUIPMENT, LABEL)

YES = {"en": "yes", "zh": "是"}
NO = {"en": "no", "zh": "否"}
THERE = {"en": "yes", "zh": "有"}
NOT_THERE = {"en": "no", "zh": "没有"}
LANGUAGES: tuple[str, ...] = ("en", "zh")

PRESENCE: dict[str, tuple[str, ...]] = {
    "en": ("Is there {name}?", "Is {name} visible?", "Can you see {name}?"),
    "zh": ("图中有{name}吗？", "有没有{name}？", "能看到{name}吗？"),
}
COUNT: dict[str, tuple[str, ...]] = {
    "en": ("How many {name} are there?", "How many {name} can you see?", "Count the {name}."),
    "zh": ("图中有几{measure}{name}？", "能看到几{measure}{name}？", "有几{measure}{name}？"),
}
COLOUR: dict[str, tuple[str, ...]] = {
    "en": ("What colour is the {name}?", "Which colour is the {name}?"),
    "zh": ("{name}是什么颜色？", "图中的{name}是什么颜色的？"),
}
READ: dict[str, tuple[str, ...]] = {
    "en": ("What does the label say?", "Read the label.", "What is on the label?"),
    "zh": ("标签上写着什么？", "标签上是什么？", "图中的标签写着什么？"),
}
ORDER: dict[str, tuple[str, ...]] = {
    "en": ("{question}", "{question}", "Is the {name} in order?"),
    "zh": ("{question}", "{question}", "{name}正常吗？"),
}


def with_article(name: str) -> str:
    """The English name with its indefinite article."""
    return ("an " if name[0] in "aeiou" else "a ") + name


def coloured_name(kind: str, colour: str | None, language: str) -> str:
    """A kind's name as a presence question says it, with its article and perhaps a colour."""
    names = EQUIPMENT[kind]
    if language == "zh":
        return names.chinese if colour is None else f"{CHINESE_COLOURS[colour]}的{names.chinese}"
    return with_article(names.english if colour is None else f"{colour} {names.english}")


def colour_word(colour: str, language: str) -> str:
    """A colour as it is answered."""
    return CHINESE_COLOURS[colour] if language == "zh" else colour


def presence_prompts(kind: str, colour: str | None, language: str) -> list[str]:
    """Every way of asking whether a kind, perhaps of one colour, is in the picture."""
    name = coloured_name(kind, colour, language)
    return [template.format(name=name) for template in PRESENCE[language]]


def count_prompts(kind: str, language: str) -> list[str]:
    """Every way of asking how many of a kind there are."""
    names = EQUIPMENT[kind]
    name = names.chinese if language == "zh" else names.plural
    return [template.format(name=name, measure=names.measure) for template in COUNT[language]]


def colour_prompts(kind: str, language: str) -> list[str]:
    """Every way of asking for the colour of the one thing of a kind."""
    names = EQUIPMENT[kind]
    name = names.chinese if language == "zh" else names.english
    return [template.format(name=name) for template in COLOUR[language]]


def label_prompts(language: str) -> list[str]:
    """Every way of asking what the label says."""
    return list(READ[language])


def order_prompts(kind: str, language: str) -> list[str]:
    """Every way of asking after the state of the one thing of a kind; the usual one twice."""
    names = EQUIPMENT[kind]
    name = names.chinese if language == "zh" else names.english
    question = names.order_chinese if language == "zh" else names.order_english
    return [template.format(name=name, question=question) for template in ORDER[language]]


def texts() -> list[str]:
    """Every prompt and every answer that the generator can make, each once, in a fixed order.

    Also the presence of a thing of one colour, which is not asked: a model of this size and
    training tells things apart by kind or by colour, and guesses at both together. The committed
    tokenizer was made with these texts, so they stay.
    """
    found: list[str] = []
    for language in LANGUAGES:
        for kind, names in EQUIPMENT.items():
            for colour in (None, *COLOURS) if names.coloured else (None,):
                found += presence_prompts(kind, colour, language)
            found += count_prompts(kind, language) + order_prompts(kind, language)
            if names.coloured:
                found += colour_prompts(kind, language)
        found += label_prompts(language)
        found += [colour_word(colour, language) for colour in COLOURS]
        found += [YES[language], NO[language], THERE[language], NOT_THERE[language]]
    found += [str(number) for number in range(MOST_COUNTED + 1)]
    return list(dict.fromkeys([*found, *WORDS, *NUMBERS]))
