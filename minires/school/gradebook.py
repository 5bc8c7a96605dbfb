"""The grade book: a CSV file with a row for each submission and exercise.

Rows are added one by one. If grading is interrupted, the next call finds the rows that are there,
and only the others are graded.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from minires.errors import InputError
from minires.school.classroom import Grade
from minires.school.submissions import Job
from minires.text import shown

COLUMNS = [field.name for field in fields(Grade)]
LONGEST = 500  # characters of a message
# a spreadsheet takes a cell that begins with one of these for a formula
FORMULA = tuple("=+-@＝＋－＠")

Key = tuple[str, str]  # submission and exercise, as they stand in the file


class Gradebook:
    """A CSV file in UTF-8, safe to open in a spreadsheet.

    Parameters
    ----------
    path : Path
        A new file, or one that an interrupted grading of the same submissions left.
    jobs : sequence of Job
        Everything that is to be graded.

    Raises
    ------
    InputError
        If the file is not ours, or has rows of other submissions: it is not changed then.
    """

    def __init__(self, path: Path, jobs: Sequence[Job]) -> None:
        self.path = path
        self.order = {_key(job.submission, job.exercise): i for i, job in enumerate(jobs)}
        rows = self._read()
        self.verdicts = {(row[0], row[1]): row[2] for row in rows}
        foreign = sorted({student for student, _ in set(self.verdicts) - set(self.order)})
        if foreign:
            raise InputError(
                f"{path} has grades that do not belong to these submissions and exercises "
                f"({', '.join(foreign[:3])}); it was not changed: name another file"
            )
        self._write(rows)  # without a last line that was cut off

    def todo(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs that have no row yet."""
        return [job for job in jobs if _key(job.submission, job.exercise) not in self.verdicts]

    def add(self, grade: Grade) -> None:
        """Add a row at once, so that an interruption does not lose it."""
        row = _row(grade)
        with self.path.open("a", encoding="utf-8", newline="") as f:
            f.write(_line(row))
        self.verdicts[row[0], row[1]] = row[2]

    def finish(self) -> None:
        """Sort the rows by submission."""
        self._write(sorted(self._read(), key=lambda row: self.order[row[0], row[1]]))

    def counts(self) -> Counter[str]:
        """How many rows have each verdict."""
        return Counter(self.verdicts.values())

    def _read(self) -> list[list[str]]:
        """Rows of the file that are whole; none if there is no file."""
        try:
            text = self.path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as e:
            raise self._not_ours(f"{type(e).__name__}") from None
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(io.StringIO(whole)))
        if text and (not rows or rows[0] != COLUMNS):
            raise self._not_ours(text.partition("\n")[0])
        if any(len(row) != len(COLUMNS) for row in rows):
            raise self._not_ours("a row with another number of columns")
        return rows[1:]

    def _not_ours(self, got: str) -> InputError:
        return InputError(
            f"{self.path}: expected a new file, or grades with the columns {', '.join(COLUMNS)}; "
            f"got {shown(got, 80)}; it was not changed: name another file"
        )

    def _write(self, rows: list[list[str]]) -> None:
        """Write the whole file; at every instant, the old or the new one is there."""
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            with beside.open("x", encoding="utf-8", newline="") as f:
                f.writelines(map(_line, [COLUMNS, *rows]))
            os.replace(beside, self.path)
        except OSError as e:
            raise InputError(f"cannot write {self.path}: {e.strerror}; name another file") from None


def _key(submission: str, exercise: str) -> Key:
    return _cell(submission), _cell(exercise)


def _row(grade: Grade) -> list[str]:
    cells = [f"{v:.1f}" if isinstance(v, float) else str(v) for v in astuple(grade)]
    return [_cell(cell) for cell in cells]


def _cell(text: str) -> str:
    """Text that a spreadsheet shows and does not compute: one line, an apostrophe if needed."""
    safe = shown(" ".join(text.split()), LONGEST)
    return f"'{safe}" if safe.startswith(FORMULA) else safe


def _line(row: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
