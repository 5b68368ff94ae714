"""DAQUAR: photos of rooms (NYU Depth v2) with questions, one JSON line per question.

::

    ROOT/questions.jsonl    {"image", "question", "answer", "split"}
    ROOT/images/NAME.jpg    as the field image says

The identity is the photo. A photo that stands in two splits stays in the first one; its questions in the other are
listed as problems. (The official split, by question, shares 1,124 photos.)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sclmkb.generate.corpora.readers.base import Entry, Problem, Reader
from sclmkb.generate.corpora.readers.entries import Broken, json_lines, read_text

QUESTIONS = "questions.jsonl"


class Daquar(Reader):
    """DAQUAR, split by photo."""

    name = "daquar"
    title = "DAQUAR"
    address = "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/vision-and-language/visual-turing-challenge"
    licence = "questions: research use (Malinowski and Fritz 2014); photos: NYU Depth v2, research use"
    modality = "pictures"
    merges_rows = True

    def annotation_files(self) -> Sequence[Path]:
        """Return the questions."""
        return [self.require(self.root / QUESTIONS)]

    def entries(self) -> Iterator[Entry | Problem]:
        """Go through the questions; each is an entry of its photo."""
        for row, value in json_lines(read_text(self.root / QUESTIONS, self.settings.encoding)):
            if isinstance(value, Broken):
                yield Problem(file=QUESTIONS, row=row, reason=value.reason)
            elif not isinstance(value, dict) or not all(value.get(n) for n in ("image", "question", "split")):
                yield Problem(file=QUESTIONS, row=row, reason="has no 'image', 'question' and 'split'")
            else:
                image, answer = str(value["image"]), value.get("answer")
                yield Entry(
                    file=QUESTIONS,
                    row=row,
                    split=str(value["split"]),
                    item_id=image,
                    identity=image,
                    group=image,
                    captions=(
                        (0, value["question"]),
                        (1, answer.replace("_", " ") if isinstance(answer, str) else answer),
                    ),
                    role={0: "question", 1: "answer"},
                    media=image,
                )
