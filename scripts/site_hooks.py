"""What the site takes from elsewhere: README, model cards, project pages, notebooks, and the files that pages link to.

Links in these pages are relative to where they live in the repository; they are rewritten to where the site has them.
"""

import json
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # file of the repository: page of the site
    "README.md": "index.md",
    "src/histoloom/weights/ebhi-seg/README.md": "model-card.md",
    "src/histoloom/weights/ebhi-seg-few-steps/README.md": "student-card.md",
    "src/histoloom/weights/encoder/README.md": "encoder-card.md",
    "benchmarks/README.md": "benchmarks-scripts.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|data:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_site: Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    global _site
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=without_front_matter((ROOT / source).read_text("utf-8"))))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    _site = files
    return files


def notebook(path: Path) -> str:
    """A notebook with its stored outputs, as Markdown."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/jpeg" in data:
                parts.append(f"![output](data:image/jpeg;base64,{''.join(data['image/jpeg']).replace(chr(10), '')})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join([*parts, f"[The notebook]({path.name})"])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page; code blocks stay."""
    home = {page: source for source, page in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = os.path.dirname(page.file.src_uri)

    def rewrite(match: re.Match) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(home), match[1]))
        return os.path.relpath(place_of(target, config), folder or ".") + (match[2] or "")

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewrite, part) for part in parts)


def place_of(target: str, config: MkDocsConfig) -> str:
    """Where the site has a file of the repository; a file that is no page is copied into it."""
    if target in PAGES:
        return PAGES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    place = f"repository/{target}"
    if (ROOT / target).is_file() and _site.get_file_from_path(place) is None:
        _site.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    return place


def without_front_matter(text: str) -> str:
    """A model card without the YAML at its head."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
