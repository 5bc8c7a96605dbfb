"""Every lesson has a quiz of five questions, and the command asks them anywhere."""

import io
import json
from pathlib import Path

import pytest

from minires import InputError
from minires.cli import lessons
from minires.school import quiz

HOME = Path(__file__).parents[1] / "lessons"
NUMBERS = [file.name.split("_")[0] for file in sorted(HOME.glob("[0-9][0-9]*_*.ipynb"))]


def test_every_lesson_has_a_quiz_and_the_command_reads_these():
    assert lessons.CHECKOUT == HOME
    assert quiz.lessons(HOME) == NUMBERS


@pytest.mark.parametrize("name", quiz.lessons(HOME))
def test_a_quiz_has_five_questions_with_the_answer_among_the_choices(name):
    asked = quiz.questions(HOME, name)
    assert len(asked) == 5
    places = set()
    for question in asked:
        assert 3 <= len(question.choices) <= 5
        assert question.answer in question.choices
        assert question.question.endswith(("?", ".)"))
        assert question.why.endswith((".", ".)"))
        places.add(question.choices.index(question.answer))
    assert len(places) >= 2  # the answer is not always at the same place


def test_all_places_of_the_answer_are_about_equally_frequent():
    asked = [question for name in quiz.lessons(HOME) for question in quiz.questions(HOME, name)]
    places = [question.choices.index(question.answer) for question in asked]
    assert all(0.15 <= places.count(place) / len(places) <= 0.4 for place in range(4))


def test_the_length_of_a_choice_does_not_tell_whether_it_is_right():
    asked = [question for name in quiz.lessons(HOME) for question in quiz.questions(HOME, name)]
    texts = [q for q in asked if max(map(len, q.choices)) >= 20]  # the others are numbers
    ranks = []
    for q in texts:
        wrong = [len(choice) for choice in q.choices if choice != q.answer]
        assert len(q.answer) <= 1.4 * max(wrong), q.question
        ranks.append(sum(length > len(q.answer) for length in wrong))
    shares = [ranks.count(rank) / len(texts) for rank in range(4)]
    assert shares[0] <= 1 / 3  # the longest
    assert shares[3] <= 1 / 3  # the shortest
    assert max(shares) <= 0.4


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_quiz_is_asked_from_standard_input_and_says_why(monkeypatch, run_cli):
    asked = quiz.questions(HOME, "03")
    letters = ["abcd"[q.choices.index(q.answer)] for q in asked]
    typed(monkeypatch, "what\n" + "\n".join([letters[0].upper() + ")", *letters[1:]]) + "\n")
    code, out, _ = run_cli("exercise", "quiz", "3")
    words = " ".join(out.split())
    assert code == 0
    assert "Expected one of a, b, c, d, got 'what'" in words
    assert all(q.why in words for q in asked)
    assert "5 of 5 right." in words


def test_a_wrong_reply_gets_the_answer_and_an_end_of_input_is_no_reply(monkeypatch, run_cli):
    asked = quiz.questions(HOME, "01")
    wrong = next(i for i, choice in enumerate(asked[0].choices) if choice != asked[0].answer)
    typed(monkeypatch, "abcd"[wrong] + "\n")
    code, out, _ = run_cli("exercise", "quiz", "01")
    assert (code, f"The answer is: {asked[0].answer}." in out) == (0, True)
    assert "0 of 5 right. The input ended; 4 have no answer." in out
    assert asked[2].question[:20] not in out


def test_json_has_the_replies_and_nothing_else_on_standard_output(monkeypatch, run_cli):
    asked = quiz.questions(HOME, "05a")
    typed(monkeypatch, "\n".join(question.answer for question in asked))
    code, out, err = run_cli("exercise", "quiz", "5a", "--json")
    record = json.loads(out)
    assert (code, record["lesson"], record["right"]) == (0, "05a", 5)
    assert [row["given"] for row in record["replies"]] == [q.answer for q in asked]
    assert "1. Table 6" in err


def test_a_lesson_without_a_quiz_is_refused(run_cli):
    code, _, err = run_cli("exercise", "quiz", "99")
    assert (code, "expected a lesson with a quiz (01, 02" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('answer = "c"', "expected different choices with the answer among them"),
        ('answer = "a"\nextra = 1', "expected the fields"),
        ("answer = 3", "answer must be a string"),
    ],
)
def test_a_wrong_file_is_named(text, words, tmp_path):
    (tmp_path / "quiz").mkdir()
    rest = 'question = "?"\nchoices = ["a", "b"]\nwhy = "."\n'
    (tmp_path / "quiz" / "01.toml").write_text(f"[[question]]\n{rest}{text}\n")
    with pytest.raises(InputError, match=r"01\.toml") as e:
        quiz.questions(tmp_path, "01")
    assert words in str(e.value)
