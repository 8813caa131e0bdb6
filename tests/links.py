#!/usr/bin/env python3
"""Checks that each link of the pages leads to a file of this tree, and to a heading if it names one; and that
each Rust file that ARCHITECTURE.md names exists.

Links to the web are not followed."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)


def prose(page):
    """The text without code: code may have brackets and lines that begin with #."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "`", text)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page):
    for link in (inline or reference for inline, reference in LINK.findall(prose(page))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists():
            yield f"{page.relative_to(ROOT)}: {link} does not exist"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{page.relative_to(ROOT)}: {link} has no such heading"


def files(pattern):
    """The files of this tree that match a pattern of git."""
    command = ["git", "ls-files", pattern]
    return subprocess.run(command, cwd=ROOT, text=True, check=True,
                          capture_output=True).stdout.splitlines()


def unknown(page):
    known = files("*.rs")
    for name in re.findall(r"`([\w/]+\.rs)`", (ROOT / page).read_text()):
        if not any(f"/{path}".endswith(f"/{name}") for path in known):
            yield f"{page}: {name} does not exist"


def main():
    pages = files("*.md")
    found = [problem for page in pages for problem in broken(ROOT / page)]
    found += unknown("ARCHITECTURE.md")
    print("\n".join(found) if found else f"the links of {len(pages)} pages lead somewhere")
    return 1 if found else 0


sys.exit(main())
