"""The wheel and the sdist hold what they should, and the wheel works where only its declared dependencies are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "oncue"
DEMO = ROOT / "examples" / "trial"


def build(target: str, source: Path, out: Path) -> Path:
    """Build with the backend that is installed here, so that no network is needed."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as an installer without wheels would, so that what the sdist lacks shows."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    # The tar command, because the first releases of Python 3.11 lack tarfile's safe filter and later ones ask for it.
    subprocess.run(["tar", "-xzf", str(sdist), "-C", str(unpacked)], check=True)
    return build("wheel", next(unpacked.iterdir()), tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_in(folder: Path) -> set[Path]:
    """The files of a folder, without what a run leaves behind."""
    return {p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts and ".db" not in p.name}


def test_the_wheel_holds_the_package_with_its_types_and_its_sql(wheel: Path) -> None:
    names = names_in(wheel)
    expected = {p.relative_to(SOURCE.parent).as_posix() for p in files_in(SOURCE)}
    assert "oncue/py.typed" in names
    assert expected <= names
    assert any(name.startswith("oncue/store/sql/") and name.endswith(".sql") for name in names)


def test_the_wheel_holds_the_demo_and_no_tests(wheel: Path) -> None:
    names = names_in(wheel)
    expected = {"oncue/_demo/" + p.relative_to(DEMO).as_posix() for p in files_in(DEMO)}
    assert expected
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"oncue"}


def test_the_sdist_holds_what_a_packager_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames()}
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "tests/conftest.py"):
        assert name in inside
    for folder in ("src/oncue", "tests", "docs", "examples/trial", "bench", "requirements"):
        assert any(name.startswith(f"{folder}/") for name in inside), folder
    assert not any("/.venv" in f"/{name}" for name in inside)


def requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Requires-Dist:")]


def closure(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that these requirements name, and those that they need in turn, without extras."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in found:
            found[requirement.name] = metadata.distribution(requirement.name)
            waiting += [Requirement(text) for text in found[requirement.name].requires or []]
    return found


def copy_distribution(distribution: metadata.Distribution, target: Path) -> None:
    for file in distribution.files or []:
        source = Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / file)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new virtual environment with the wheel and the dependencies that it declares, no others."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=100)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for distribution in closure(requirements_of(wheel)).values():
        copy_distribution(distribution, site)
    return folder / "bin"


def run(bin_folder: Path, command: str, *arguments: str, cwd: Path) -> str:
    """Run a command of that environment, with nothing of this one in sight."""
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(cwd), "LANG": os.environ.get("LANG", "C.UTF-8")}
    done = subprocess.run(
        [str(bin_folder / command), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_wheel_imports(installed: Path, tmp_path: Path) -> None:
    out = run(installed, "python", "-c", "import oncue; print(oncue.__file__, oncue.OnCue.__name__)", cwd=tmp_path)
    assert str(installed.parent) in out
    assert "OnCue" in out


def test_the_installed_wheel_opens_a_database(installed: Path, tmp_path: Path) -> None:
    code = """if True:
        import asyncio, oncue
        app = oncue.OnCue("sqlite:///a.db")
        @app.task()
        async def hello(name: str) -> None: ...
        async def main() -> None:
            async with app:
                print((await app.schedule(hello.call("you"), delay=60)).status)
        asyncio.run(main())
    """
    assert run(installed, "python", "-c", code, cwd=tmp_path).strip() == "created"


def test_the_installed_command_helps(installed: Path, tmp_path: Path) -> None:
    out = run(installed, "oncue", "--help", cwd=tmp_path)
    for word in ("worker", "serve", "jobs", "demo"):
        assert word in out


def test_the_licence_and_the_types_are_declared() -> None:
    declared = metadata.metadata("oncue")
    assert declared["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in (declared.get_all("Classifier") or [])
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
