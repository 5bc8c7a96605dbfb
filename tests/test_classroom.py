"""A class is graded: every submission gets a verdict, and none of them harms the next."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minires import InputError
from minires.school import classroom, submissions
from minires.school.classroom import Grade
from minires.school.gradebook import COLUMNS, Gradebook
from minires.school.sandbox import Limits
from minires.school.submissions import Job

HEAD = "import os\nimport signal\ndef relu_backward(dy, cache):\n    (positive,) = cache\n    "
CLASS = {
    "looping": (HEAD + "while True: pass", "timeout"),
    "right": (HEAD + "return dy * positive", "passed"),
    "wrong": (HEAD + "return dy * (dy > 0)", "failed"),
    "exiting": (HEAD + "os._exit(0)", "error"),
    "killing its grader": (HEAD + "os.kill(os.getppid(), signal.SIGKILL)", "error"),
    "empty": ("", "missing"),
    "no python": ("def relu_backward(dy, cache)", "error"),
}


def write_class(folder, names=CLASS):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "relu_backward.py").write_text(CLASS[name][0])
    (folder / "absent").mkdir()


def rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_submission_gets_its_verdict_and_none_harms_the_next(tmp_path, run_cli):
    folder = tmp_path / "class"
    write_class(folder)
    table = tmp_path / "grades.csv"
    words = ("exercise", "check", folder, "--csv", table, "--case-limit", 2, "--jobs", 2, "--json")
    code, out, err = run_cli(*words)
    assert code == 0
    assert "left" in err  # the time left
    assert list(rows(table)[0]) == COLUMNS
    verdicts = {row["submission"]: row["verdict"] for row in rows(table)}
    assert verdicts == {name: verdict for name, (_, verdict) in CLASS.items()} | {
        "absent": "missing"
    }
    assert [row["submission"] for row in rows(table)] == sorted(verdicts)
    by_name = {row["submission"]: row for row in rows(table)}
    assert int(by_name["right"]["cases"]) > 100
    assert "mask taken from the gradient" in by_name["wrong"]["message"]
    assert "line 5: while True: pass" in by_name["looping"]["message"]
    assert json.loads(out)["submissions"] == 8
    # again: everything is graded already, and the file stays as it is
    before = table.read_bytes()
    code, out, _ = run_cli(*words[:-1])
    assert (code, "graded before" in out) == (0, True)
    assert table.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="sends Ctrl-C to another process")
def test_an_interrupted_grading_keeps_its_rows_and_resumes(tmp_path):
    folder = tmp_path / "class"
    write_class(folder, ["looping", "empty"])
    table = tmp_path / "grades.csv"
    command = [sys.executable, "-m", "minires", "exercise", "check", str(folder)]
    command += ["--csv", str(table), "--jobs", "2", "--limit", "120", "--case-limit", "120"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        while not table.is_file() or len(rows(table)) < 2:  # the looping one does not end
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "2 of 3 rows" in err
    assert "Run the same command again" in err
    book = Gradebook(table, submissions.find(folder))
    assert [job.submission for job in book.todo(submissions.find(folder))] == ["looping"]


# ---------------------------------------------------------------------------------- the grade book


def graded(name, message="", verdict="failed"):
    return Grade(name, "relu_backward", verdict, 3, 1.25, message)


def test_a_cell_is_one_line_of_text_and_never_a_formula(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "a,b", 'quo"te', "Zoë", " =1"]
    jobs = [Job(name, "relu_backward", None) for name in names]
    table = tmp_path / "grades.csv"
    book = Gradebook(table, jobs)
    for name in names:
        book.add(graded(name, "=1+1\nsecond line\x1b[31m\u202e"))
    text = table.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + len(names)
    for row in rows(table):
        assert row["message"].startswith("'=1+1 second line\\x1b")
        assert not row["submission"].lstrip().startswith(tuple("=+-@"))
    assert "Zoë" in {row["submission"] for row in rows(table)}
    assert Gradebook(table, jobs).todo(jobs) == []  # escaped names are recognised


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,points\nAda,3\n", "got name,points"),
        (",".join(COLUMNS) + "\nBob,relu_backward,passed,3,1.0,\n", "do not belong"),
        (",".join(COLUMNS) + "\nAda,relu_backward\n", "number of columns"),
        ("\x89PNG", "got "),
    ],
)
def test_a_file_with_anything_else_in_it_is_refused_and_unchanged(content, words, tmp_path):
    table = tmp_path / "grades.csv"
    table.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="it was not changed") as e:
        Gradebook(table, [Job("Ada", "relu_backward", None)])
    assert words in str(e.value)
    assert table.read_text(encoding="utf-8") == content
    assert list(tmp_path.iterdir()) == [table]


def test_a_row_that_was_cut_off_is_graded_again(tmp_path):
    jobs = [Job(name, "relu_backward", None) for name in ("Ada", "Bob")]
    table = tmp_path / "grades.csv"
    book = Gradebook(table, jobs)
    book.add(graded("Ada"))
    with table.open("a") as f:
        f.write("Bob,relu_back")
    again = Gradebook(table, jobs)
    assert [job.submission for job in again.todo(jobs)] == ["Bob"]
    again.add(graded("Bob"))
    assert [row["submission"] for row in rows(table)] == ["Ada", "Bob"]


# --------------------------------------------------------------------------------- the submissions


def found(folder, wanted=()):
    return {
        (job.submission, job.exercise): job.file.name if job.file else job.verdict
        for job in submissions.find(folder, wanted)
    }


def test_files_are_found_by_what_they_define_and_links_out_are_not_followed(tmp_path):
    folder = tmp_path / "class"
    (folder / "Ada" / "inner").mkdir(parents=True)
    (folder / "Ada" / "inner" / "mine.py").write_text("def relu_forward(x):\n    return x\n")
    (folder / "Ada" / "helper.py").write_text("def half(x):\n    return x\n")
    (folder / "Bob.py").write_text("def relu_forward(x): pass\ndef relu_backward(dy, c): pass\n")
    (folder / "_private").mkdir()
    (folder / "Eve").mkdir()
    (folder / "Eve" / "relu_forward.py").symlink_to(folder / "Ada" / "inner" / "mine.py")
    (folder / "Fay").mkdir()
    for name in ("one.py", "two.py"):
        (folder / "Fay" / name).write_text("relu_forward = lambda x: x\n")
    assert found(folder) == {
        ("Ada", "relu_forward"): "mine.py",
        ("Ada", "relu_backward"): "missing",
        ("Bob", "relu_forward"): "Bob.py",
        ("Bob", "relu_backward"): "Bob.py",
        ("Eve", "relu_forward"): "missing",
        ("Eve", "relu_backward"): "missing",
        ("Fay", "relu_forward"): "error",
        ("Fay", "relu_backward"): "missing",
    }
    assert set(found(folder, ["col2im"]).values()) == {"missing"}


def test_a_folder_without_submissions_or_exercises_is_refused_with_exit_code_2(tmp_path, run_cli):
    (tmp_path / "a").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "Ada").mkdir()
    (tmp_path / "twice" / "Ada").mkdir(parents=True)
    (tmp_path / "twice" / "Ada.py").write_text("")
    table = ("--csv", tmp_path / "grades.csv")
    for words, answer in [
        ((tmp_path / "a", *table), "found none in 1 submissions"),
        ((tmp_path / "empty", *table), "for each student"),
        ((tmp_path / "twice", *table), "expected different names"),
        ((tmp_path / "a",), "expected --csv FILE"),
        ((tmp_path / "a", *table, "--exercise", "rely"), "unknown exercise 'rely'"),
        ((tmp_path / "twice" / "Ada.py", *table), "expected a folder"),
    ]:
        code, _, err = run_cli("exercise", "check", *words)
        assert (code, answer in err) == (2, True), err
    assert not (tmp_path / "grades.csv").exists()


def test_a_grader_that_prints_no_verdict_counts_as_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(classroom, "CODE", "print('nothing', {!r})")
    job = Job("Ada", "relu_backward", Path(tmp_path / "a.py"))
    (grade,) = classroom.grade([job], Limits(), 1)
    assert (grade.verdict, "without a verdict" in grade.message) == ("error", True)


# ------------------------------------------------------------------------------------- Gradescope


def test_the_autograder_writes_the_results_that_gradescope_documents(tmp_path):
    source = Path(__file__).parents[1] / "lessons" / "teachers" / "gradescope"
    for name in ("source", "submission"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "exercises.toml").write_text("relu_backward = 2\ncol2im = 3\n")
    (tmp_path / "submission" / "relu_backward.py").write_text(CLASS["right"][0])
    script = source / "run_autograder"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [(t["name"], t["score"], t["max_score"], t["status"]) for t in results["tests"]] == [
        ("relu_backward", 2, 2, "passed"),
        ("col2im", 0, 3, "failed"),
    ]
    assert results["tests"][1]["output"] == "missing: No file defines col2im."
    assert {t["visibility"] for t in results["tests"]} == {"visible"}
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!")
    assert "exercises.toml" in {file.name for file in source.iterdir()}
    assert "/autograder/venv" in (source / "setup.sh").read_text()
