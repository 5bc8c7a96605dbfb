"""Quizzes: five questions on a lesson, with the answer and the reason for it.

They are data: `lessons/quiz/NN.toml`. A wrong choice is a misconception that the lesson refutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minires.errors import InputError
from minires.school.tables import parse_tables

LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Question:
    """A question with its choices; `answer` is one of them, and `why` explains it."""

    question: str
    choices: tuple[str, ...]
    answer: str
    why: str

    def choice(self, typed: str) -> str | None:
        """The choice that was typed, as its letter or its text; None if there is no such choice."""
        text = typed.strip()
        if text in self.choices:
            return text
        letter = text.rstrip(").").lower()
        by_letter = dict(zip(LETTERS, self.choices, strict=False))
        return by_letter.get(letter)


@dataclass(frozen=True)
class Reply:
    """A question and the choice that was given; None if the input ended before."""

    question: Question
    given: str | None

    @property
    def right(self) -> bool:
        """Whether the answer was given."""
        return self.given == self.question.answer


def lessons(folder: Path) -> list[str]:
    """Names of the lessons that have a quiz, in order."""
    return sorted(file.stem for file in (folder / "quiz").glob("*.toml"))


def name_of(folder: Path, typed: str) -> str:
    """Name of a lesson as its quiz has it: "3" is "03".

    Raises
    ------
    InputError
        If it has no quiz.
    """
    known = lessons(folder)
    name = typed if typed in known else f"0{typed}"
    if name not in known:
        raise InputError(
            f"expected a lesson with a quiz ({', '.join(known) or 'none found'}), got {typed!r}"
        )
    return name


def questions(folder: Path, lesson: str) -> list[Question]:
    """Read the quiz of a lesson.

    Parameters
    ----------
    folder : Path
        Folder of the lessons.
    lesson : str
        Such as "03"; a lesson with a letter is "04b".

    Raises
    ------
    InputError
        If the file is not as it should be.
    """
    file = folder / "quiz" / f"{lesson}.toml"
    fields = {"question": str, "choices": list, "answer": str, "why": str}
    rows = parse_tables(file.read_text(encoding="utf-8"), file.name, "question", fields, "question")
    for row in rows:
        choices = row["choices"]
        if row["answer"] not in choices or len(set(choices)) < len(choices):
            raise InputError(
                f"{file.name}, {row['question']!r}: expected different choices with the answer "
                f"among them, got {choices}; correct the file"
            )
    return [Question(r["question"], tuple(r["choices"]), r["answer"], r["why"]) for r in rows]


def ask(
    asked: Sequence[Question], read: Callable[[], str | None], write: Callable[[str], object]
) -> Iterator[Reply]:
    """Ask each question; yield the replies.

    Parameters
    ----------
    asked : sequence of Question
    read : callable
        Returns a line that was typed; None at the end of the input.
    write : callable
        Prints a text.
    """
    for number, question in enumerate(asked, start=1):
        letters = LETTERS[: len(question.choices)]
        write(f"\n{number}. {question.question}\n")
        for letter, choice in zip(letters, question.choices, strict=True):
            write(f"   {letter}) {choice}")
        write(f"Type {', '.join(letters[:-1])} or {letters[-1]}:")
        given = None
        while given is None:
            typed = read()
            if typed is None:
                yield from (Reply(question, None) for question in asked[number - 1 :])
                return
            given = question.choice(typed)
            if given is None:
                write(f"Expected one of {', '.join(letters)}, got {typed.strip()[:40]!r}:")
        reply = Reply(question, given)
        verdict = "Right." if reply.right else f"No. The answer is: {question.answer}."
        write(f"{verdict} {question.why}")
        yield reply
