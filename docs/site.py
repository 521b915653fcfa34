"""Builds the documentation as a site, in build/site: python docs/site.py [FOLDER]

The pages are the Markdown files that there are: README.md is the front page, those of docs/ stand beside it.
Links from page to page are kept; a link to any other file leads to the repository. mkdocs stops at a link to
a page or heading that is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/ema-smooth/ema-smooth/blob/main"
# Pages that lie elsewhere, and what they are called on the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "sample_data/README.md": "sample_data.md",
}
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?(\))")


def pages() -> dict[str, str]:
    """The files that are pages or pictures, by their path in the repository, and their path on the site."""
    own = {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    pictures = {
        f"docs/pictures/{path.name}": f"pictures/{path.name}" for path in (ROOT / "docs/pictures").iterdir()
    }
    return ELSEWHERE | own | pictures


def relinked(text: str, page: str, places: dict[str, str]) -> str:
    """A page's text with its links as they are on the site. page: its path in the repository."""

    def link(match: re.Match[str]) -> str:
        target = resolved(PurePosixPath(page).parent, match[2])
        place = places.get(target, f"{REPOSITORY}/{target}")
        return f"{match[1]}{place}{match[3] or ''}{match[4]}"

    return LINK.sub(link, text)


def resolved(folder: PurePosixPath, link: str) -> str:
    """The path in the repository that a relative link leads to."""
    parts: list[str] = []
    for part in (folder / link).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def assemble(folder: Path) -> None:
    """Put all pages and pictures into `folder`, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    places = pages()
    for path, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".md"):
            target.write_text(relinked((ROOT / path).read_text(), path, places))
        else:
            shutil.copyfile(ROOT / path, target)


def build(site: Path) -> None:
    """Build the site. Exits with mkdocs' words where a link leads nowhere."""
    assemble(ROOT / "build" / "pages")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    # The theme advertises its successor otherwise. With --quiet no warning would stop it.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


if __name__ == "__main__":
    site = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / "site"
    build(site)
    print(f"{site}/index.html")
