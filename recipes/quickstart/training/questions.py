"""Questions about a drawn scene, with answers that its things make true."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from recipes.quickstart.training import words
from recipes.quickstart.training.parts import Question, Thing

POSITIVE_SHARE = 0.34
_HARD_SHARE = 0.6
_ENGLISH_SHARE = 0.55


class _Asker:
    """Makes questions about one scene, no prompt twice."""

    def __init__(
        self, things: Sequence[Thing], resembled: Sequence[str], random: np.random.Generator
    ) -> None:
        self.random = random
        self.equipment = [thing for thing in things if thing.kind != words.LABEL]
        self.label = next((thing.text for thing in things if thing.kind == words.LABEL), None)
        self.counts = Counter(thing.kind for thing in self.equipment)
        self.single = [thing for thing in self.equipment if self.counts[thing.kind] == 1]
        self.absent = [kind for kind in words.EQUIPMENT if not self.counts[kind]]
        self.hard = [kind for kind in dict.fromkeys(resembled) if not self.counts[kind]]
        self.asked: set[str] = set()

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.random.integers(len(options)))]

    def ask(
        self, kind: str, language: str, prompts: Sequence[str], answer: str, positive: bool = False
    ) -> Question | None:
        prompt = self.pick(prompts)
        if prompt in self.asked:
            return None
        self.asked.add(prompt)
        return Question(kind, language, prompt, answer, positive)

    def language(self) -> str:
        return "en" if self.random.random() < _ENGLISH_SHARE else "zh"

    def presence(self) -> Question | None:
        language = self.language()
        positive = bool(self.equipment) and bool(self.random.random() < POSITIVE_SHARE)
        kind = self.pick(sorted(self.counts)) if positive else self._absent()
        answer = (words.THERE if positive else words.NOT_THERE)[language]
        prompts = words.presence_prompts(kind, None, language)
        return self.ask("presence", language, prompts, answer, positive)

    def _absent(self) -> str:
        hard = self.hard and self.random.random() < _HARD_SHARE
        return self.pick(self.hard if hard else self.absent)

    def count(self) -> Question | None:
        language = self.language()
        some = [kind for kind, number in self.counts.items() if number > 1]
        if some and self.random.random() < 0.65:
            kind = self.pick(some)
        elif self.counts and self.random.random() < 0.7:
            kind = self.pick(sorted(self.counts))
        else:
            kind = self.pick(self.absent)
        answer = str(self.counts[kind])
        return self.ask("count", language, words.count_prompts(kind, language), answer)

    def colour(self) -> Question | None:
        painted = [thing for thing in self.single if thing.colour is not None]
        if not painted:
            return None
        language = self.language()
        thing = painted[int(self.random.integers(len(painted)))]
        answer = words.colour_word(str(thing.colour), language)
        return self.ask("colour", language, words.colour_prompts(thing.kind, language), answer)

    def read(self) -> Question | None:
        if self.label is None:
            return None
        language = self.language()
        return self.ask("label", language, words.label_prompts(language), self.label)

    def order(self) -> Question | None:
        if not self.single:
            return None
        language = self.language()
        thing = self.single[int(self.random.integers(len(self.single)))]
        answer = (words.YES if thing.in_order else words.NO)[language]
        return self.ask("order", language, words.order_prompts(thing.kind, language), answer)


def ask(
    things: Sequence[Thing],
    resembled: Sequence[str],
    number: int,
    random: np.random.Generator,
) -> tuple[Question, ...]:
    """At most `number` questions: one of each kind that can be asked, half of them on presence.

    `resembled` lists the kinds that some clutter in the scene may be taken for; absent ones among
    them make the hard presence questions. Prompts do not repeat.
    """
    asker = _Asker(things, resembled, random)
    other: list[Callable[[], Question | None]] = [
        asker.read,
        asker.order,
        asker.count,
        asker.colour,
    ]
    plan = [asker.presence, *other, asker.presence, asker.presence, asker.presence]
    found: list[Question] = []
    for make in plan:
        question = make() if len(found) < number else None
        if question is not None:
            found.append(question)
    for _ in range(8 * number):
        if len(found) >= number:
            break
        make = other[int(random.integers(len(other)))] if random.random() < 0.6 else asker.presence
        question = make()
        if question is not None:
            found.append(question)
    return tuple(found)
