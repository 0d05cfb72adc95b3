"""Prompts in eight languages with true English rewrites, from which slips are planted."""

from __future__ import annotations

PAIRS: list[tuple[str, str]] = [
    ("three red balloons drift upwards", "Three red balloons float upward over a quiet town."),
    ("a crimson car drives from left to right", "A red car drives to the right along a wet street."),
    ("two white dogs run to the left", "A pair of white dogs runs left across a meadow."),
    ("a black cat that does not move", "A black cat sits still on a wall."),
    ("a street without people, yellow light", "An empty street without any people, in yellow light."),
    ("five green bottles on a wall", "Five green bottles stand in a row on a wall."),
    ("the blue bird is not flying, it walks to the right", "A blue bird walks right and is not flying."),
    ("seven purple flowers, no wind", "Seven purple flowers stand with no wind in a vase."),
    ("a brown horse climbs up the hill", "A brown horse walks up a steep hill."),
    ("an orange leaf sinks down in the water", "An orange leaf sinks down through clear water."),
    ("4 pink candles never go out", "Four pink candles burn and never go out."),
    ("a gray wolf, no moon, snow falling", "A grey wolf in falling snow at night with no moon."),
    ("dos gatos negros caminan hacia la izquierda", "Two black cats walk to the left."),
    ("un globo rojo sube sin parar", "A red balloon rises without stopping."),
    ("tres coches azules van a la derecha", "Three blue cars drive to the right."),
    ("una calle blanca sin gente", "A white street without people."),
    ("una hoja amarilla cae hacia abajo", "A yellow leaf falls down."),
    ("cinco rosas, ninguna es morada", "Five roses, none of them purple."),
    ("un perro marrón que no ladra", "A brown dog that is not barking."),
    ("两只黑猫向左走", "Two black cats walk to the left."),
    ("三个红色气球往上飘", "Three red balloons drift upwards."),
    ("一辆蓝色汽车从左到右行驶", "A blue car drives from left to right."),
    ("没有人的白色房间", "A white room without people."),
    ("一片黄色的叶子向下飘落", "A yellow leaf drifts downward."),
    ("五朵紫色的花，没有风", "Five purple flowers, and no wind."),
    ("deux chats noirs marchent vers la gauche", "Two black cats walk left."),
    ("une voiture rouge roule vers la droite", "A red car drives to the right."),
    ("une rue blanche sans personne", "A white street without anybody."),
    ("trois ballons bleus montent vers le haut", "Three blue balloons rise upward."),
    ("zwei schwarze Katzen laufen nach links", "Two black cats walk to the left."),
    ("ein rotes Auto fährt nach rechts", "A red car drives to the right."),
    ("eine weiße Straße ohne Menschen", "A white street without people."),
    ("drei blaue Ballons steigen nach oben", "Three blue balloons rise upwards."),
    ("dois gatos pretos andam para a esquerda", "Two black cats walk to the left."),
    ("um carro vermelho anda para a direita", "A red car drives to the right."),
    ("uma rua branca sem pessoas", "A white street without people."),
    ("две чёрные кошки идут налево", "Two black cats walk to the left."),
    ("красная машина едет направо", "A red car drives to the right."),
    ("белая улица без людей", "A white street without people."),
    ("二匹の黒い猫が左へ歩く", "Two black cats walk to the left."),
    ("赤い車が右へ走る", "A red car drives to the right."),
    ("人がいない白い部屋", "A white room without people."),
    ('a sign that says "OPEN" above a green door', 'A green door below a sign that reads "OPEN".'),
    ("my friend Anna walks along the Seine, blue dress", "Anna, in a blue dress, walks along the Seine."),
    ("nine yellow ducks swim to the right", "Nine yellow ducks swim toward the right."),
    (
        "a red circle moves right and a green square moves left",
        "A red circle moves right. A green square moves left.",
    ),
    ("ten cyan lamps hang down", "Ten cyan lamps hang down from the ceiling."),
    ("a white boat is not moving", "A white boat lies motionless in the harbour."),
    ("six orange fish swim to the left, without bubbles", "Six orange fish swim left without bubbles."),
    ("a blue kite goes up, not down", "A blue kite goes up and not down."),
]

_COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "white",
    "black",
    "grey",
    "brown",
)
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_FLIPS = {
    "to the left": "to the right",
    "to the right": "to the left",
    "left": "right",
    "right": "left",
    "upward": "downward",
    "upwards": "downwards",
    "downward": "upward",
    "up": "down",
    "down": "up",
}
_NEGATIONS = ("without any", "without", "never", "none of them", "and no", "no", "is not", "not", "and not")


def planted() -> list[tuple[str, str, str]]:
    """Return (original, rewrite with one slip, kind): a colour, number, direction or negation changed."""
    import re

    found = []
    for original, text in PAIRS:
        words = text.split()
        for at, word in enumerate(words):
            bare = word.strip(".,").lower()
            if bare in _COLOURS:
                for step in (1, 4, 7):
                    other = _COLOURS[(_COLOURS.index(bare) + step) % len(_COLOURS)]
                    found.append((original, _with(words, at, other), "colour"))
            if bare in _NUMBERS:
                for step in (1, 3):
                    other = _NUMBERS[(_NUMBERS.index(bare) + step) % len(_NUMBERS)]
                    found.append((original, _with(words, at, other), "number"))
            if bare in _FLIPS and "from left to right" not in text:
                found.append((original, _with(words, at, _FLIPS[bare]), "direction"))
        for negation in _NEGATIONS:
            if re.search(rf"\b{negation}\b", text):
                changed = re.sub(rf"\b{negation}\b", "with" if "with" in negation else "", text)
                found.append((original, " ".join(changed.split()), "negation"))
                break
        else:
            first, _, rest = text.partition(" ")
            found.append((original, f"{first} {rest.rstrip('.')} without any sound.", "negation"))
    return found


def _with(words: list[str], at: int, word: str) -> str:
    mark = words[at][len(words[at].rstrip(".,")) :]
    shown = word.capitalize() if words[at][0].isupper() else word
    return " ".join([*words[:at], shown + mark, *words[at + 1 :]])
