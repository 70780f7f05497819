"""Real English text of a wanted size, one paragraph a line, from packages of Debian that hold whole dictionaries and books.

    apt-get download dict-gcide dict-wn anarchism          # Webster 1913, WordNet's glosses, a book; about 8.8M words
    for package in *.deb; do dpkg -x $package unpacked; done
    python benchmarks/real_text.py --unpacked unpacked --words 5000000 --output text.txt

Paragraphs are taken in the order of their hash, so that each source has its share in every part of the text.
"""

import argparse
import gzip
import hashlib
import html
import re
from pathlib import Path

DICTIONARIES = ("usr/share/dictd/gcide.dict.dz", "usr/share/dictd/wn.dict.dz")
BOOK = "usr/share/doc/anarchism/html"
ENTRY = re.compile(r"\n\s*\n|\n(?=\S)")  # a blank line, or a new headword
MARKS = re.compile(r"\[(1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.)[^\]]*\]|\\[^\\\n]*\\")  # sources, syllables
WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)*")


def paragraphs(root):
    """Every paragraph of every source, as lower-case words with single spaces."""
    for name in DICTIONARIES:
        text = gzip.decompress((root / name).read_bytes()).decode("utf-8", errors="replace")
        yield from (words(part) for part in ENTRY.split(MARKS.sub(" ", text)))
    for page in sorted((root / BOOK).rglob("*.html")):
        text = page.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"(?is)<(script|style|head).*?</\1>", " ", text)
        parts = re.split(r"(?i)</?(?:p|h\d|li|blockquote|div|td|br)\b[^>]*>", text)
        yield from (words(html.unescape(re.sub(r"<[^>]+>", " ", part))) for part in parts)


def words(text):
    return WORD.findall(text.lower())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpacked", type=Path, required=True, help="folder into which the packages were unpacked")
    parser.add_argument("--words", type=int, default=5_000_000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    lines = [" ".join(part) for part in paragraphs(options.unpacked) if part]
    lines.sort(key=lambda line: hashlib.sha256(line.encode()).digest())
    total = 0
    with options.output.open("w", encoding="utf-8") as file:
        for line in lines:
            if total >= options.words:
                break
            file.write(line + "\n")
            total += line.count(" ") + 1
    print(f"{options.output}: {total:,} words of {sum(line.count(' ') + 1 for line in lines):,}")


if __name__ == "__main__":
    main()
