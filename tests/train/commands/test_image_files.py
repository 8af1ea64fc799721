"""Which files a person means by paths, folders and patterns."""

import io
import os

import pytest

from train.commands.image_files import find_images
from train.printing import escape_what_cannot_be_printed, printable, say
from train.run.outputs import Outputs


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names(root, *paths):
    found = find_images([root / path for path in paths], made_by="predict")
    return [str(file.relative_to(root)) for file in found.files], found


def test_folders_are_walked_and_what_is_left_out_is_counted(tmp_path):
    make(tmp_path, "p/b.PNG", "p/a/deep/er/c.jpg", "p/notes.txt", "p/x.txt", "p/README")
    make(tmp_path, "p/.hidden.png", "p/.git/a.png", "p/._b.png")
    files, found = names(tmp_path, "p")
    assert files == ["p/b.PNG", "p/a/deep/er/c.jpg"]
    (note,) = found.notes
    assert "files without an image's ending" in note
    assert ".txt: 2" in note
    assert not found.unusable


def test_a_folder_with_a_link_round_to_itself_is_walked_once(tmp_path):
    make(tmp_path, "p/a/b.png", "elsewhere/c.png")
    (tmp_path / "p" / "a" / "round").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "more").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path, "p")[0] == ["p/a/b.png", "p/more/c.png"]


def test_a_file_given_in_several_ways_is_looked_at_once(tmp_path):
    make(tmp_path, "p/a.png", "p/b.png")
    assert names(tmp_path, "p/b.png", "p", "p/../p/b.png", "p/*.png")[0] == [
        "p/b.png",
        "p/a.png",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/*.png", ["p/a.png", "q/a.png"]),
        ("?/a.*", ["p/a.png", "q/a.png"]),
        ("**/c.jpg", ["p/deep/c.jpg"]),
        ("[p]", ["p/a.png", "p/deep/c.jpg"]),
    ],
)
def test_quoted_patterns_are_expanded(tmp_path, pattern, expected):
    make(tmp_path, "p/a.png", "q/a.png", "p/deep/c.jpg")
    assert names(tmp_path, pattern)[0] == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    make(tmp_path, "a[1].png", "a1.png")
    assert names(tmp_path, "a[1].png")[0] == ["a[1].png"]


def test_paths_that_lead_to_no_image_are_named(tmp_path):
    make(tmp_path, "text/a.txt")
    (tmp_path / "empty").mkdir()
    files, found = names(tmp_path, "empty", "text", "*.gif")
    assert files == []
    assert {path.name: reason for path, reason in found.unusable.items()} == {
        "empty": "holds no image.",
        "text": "holds no image.",
        "*.gif": "matches no file.",
    }


def test_pictures_of_predict_are_no_photographs(tmp_path):
    make(tmp_path, "a.png")
    Outputs(tmp_path, "predict", [tmp_path / "run"]).write("a-rectangle.png", b"x")
    assert names(tmp_path, ".")[0] == ["a.png"]
    # Nor if the shell has expanded a pattern.
    files, found = names(tmp_path, "a.png", "a-rectangle.png")
    assert files == ["a.png"]
    assert "predict itself has made (1)" in found.notes[0]
    # But one that was changed since is the user's.
    (tmp_path / "a-rectangle.png").write_bytes(b"mine")
    assert names(tmp_path, ".")[0] == ["a-rectangle.png", "a.png"]


def test_names_print_on_one_line_and_are_valid_text():
    name = os.fsdecode(b"caf\xe9\n\x1b[31m\xe7\x8c\xab.png")
    assert printable(name) == "caf\\xe9\\n\\x1b[31m\u732b.png"


def test_a_terminal_without_the_letters_gets_escapes(monkeypatch):
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    escape_what_cannot_be_printed()
    say("\u732b 1%")
    assert written.getvalue() == b"\\u732b 1%\n"
