import json
import subprocess
import sys

import pytest

from cellular.bank import current_version, publish
from cellular.bank.manifest import (
    MANIFEST,
    Manifest,
    TeacherEntry,
    read_manifest,
    seal,
    set_current,
    version_folder,
    versions,
)
from cellular.errors import CellularError

FIELDS = Manifest(
    teacher=TeacherEntry(name="hash", fingerprint="hash:04"),
    dimension=4,
    phrases=1,
    occurrences=1,
    embedding_dtype="float16",
)


def stage(target, content=b"data", build=""):
    staged = target / "staged"
    staged.mkdir(parents=True)
    (staged / "phrases.arrow").write_bytes(content)
    seal(staged, FIELDS.model_copy(update={"build": build}))
    return staged


def test_a_manifest_reads_back_as_it_was_sealed(tmp_path):
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "phrases.arrow").write_bytes(b"data")
    sealed = seal(staged, FIELDS)
    assert read_manifest(staged) == sealed
    assert sealed.files["phrases.arrow"].bytes == 4


def test_versions_count_up_and_the_last_published_is_current(tmp_path):
    assert current_version(tmp_path) is None
    assert publish(tmp_path, stage(tmp_path)) == "v000001"
    assert publish(tmp_path, stage(tmp_path)) == "v000002"
    assert current_version(tmp_path) == "v000002"
    assert versions(tmp_path) == ["v000001", "v000002"]
    set_current(tmp_path, "v000001")
    assert current_version(tmp_path) == "v000001"
    assert publish(tmp_path, stage(tmp_path)) == "v000003"


def test_an_unsealed_folder_is_never_published(tmp_path):
    staged = stage(tmp_path)
    (staged / MANIFEST).unlink()
    with pytest.raises(CellularError, match="no manifest"):
        publish(tmp_path, staged)
    assert current_version(tmp_path) is None and versions(tmp_path) == []


def test_a_folder_that_lost_bytes_is_never_published(tmp_path):
    publish(tmp_path, stage(tmp_path))
    staged = stage(tmp_path)
    (staged / "phrases.arrow").write_bytes(b"dat")
    with pytest.raises(CellularError, match=r"phrases.arrow has 3 bytes instead of 4"):
        publish(tmp_path, staged)
    assert current_version(tmp_path) == "v000001"


def test_death_between_rename_and_switch_leaves_the_old_version_current_and_the_new_one_whole(
    tmp_path, monkeypatch
):
    publish(tmp_path, stage(tmp_path, build="first"))

    def die(target, version):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("cellular.bank.manifest.set_current", die)
        publish(tmp_path, stage(tmp_path, build="second"))
    assert current_version(tmp_path) == "v000001"
    assert versions(tmp_path) == ["v000001", "v000002"]
    set_current(tmp_path, "v000002")
    assert read_manifest(version_folder(tmp_path, "v000002")).build == "second"


def test_a_manifest_of_another_format_is_refused_with_both_formats(tmp_path):
    staged = stage(tmp_path)
    fields = json.loads((staged / MANIFEST).read_text())
    (staged / MANIFEST).write_text(json.dumps(fields | {"format": 7}))
    with pytest.raises(CellularError, match="has format 7, this release reads format 1"):
        read_manifest(staged)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "\x00", '{"format": 1, "zzz": 2}'])
def test_a_broken_manifest_names_its_file_and_the_command(tmp_path, text):
    publish(tmp_path, stage(tmp_path))
    path = version_folder(tmp_path, "v000001") / MANIFEST
    path.write_text(text)
    with pytest.raises(CellularError, match=f"cellular bank verify {tmp_path}`"):
        read_manifest(path.parent)


@pytest.mark.parametrize("content", [b"", b"../../etc", b"\xff\xfe"])
def test_a_broken_current_file_is_an_error_not_a_path(tmp_path, content):
    publish(tmp_path, stage(tmp_path))
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(CellularError, match="does not name a version"):
        current_version(tmp_path)


def test_a_manifest_names_its_release_where_the_package_is_not_installed() -> None:
    """`ray job submit --working-dir .` brings the code along without its metadata."""
    code = (
        "import importlib.metadata as metadata\n"
        "def missing(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = metadata.distribution = missing\n"
        "from cellular.bank.manifest import Manifest\n"
        "assert Manifest.model_fields['cellular'].default\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
