"""DAQUAR: photos of rooms (NYU Depth v2) with questions, one JSON line per question.

::

    ROOT/questions.jsonl    {"image", "question", "answer", "split"}
    ROOT/images/NAME.jpg    as the field image says

The identity is the photo. A photo that stands in two splits stays in the first one; its questions in the other are
listed as problems. (The official split, by question, shares 1,124 photos.)
"""

from typing import Any

from sclmkb.generate.corpora.reader import Entry, Problem
from sclmkb.generate.corpora.records import Place, RecordReader


class Daquar(RecordReader):
    """DAQUAR, split by photo."""

    name = "daquar"
    title = "DAQUAR"
    table = "questions.jsonl"
    address = "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/vision-and-language/visual-turing-challenge"
    licence = "questions: research use (Malinowski and Fritz 2014); photos: NYU Depth v2, research use"
    modality = "pictures"
    merges_rows = True

    def entry(self, record: dict[str, Any], place: Place) -> Entry | Problem:
        """Return a question as an entry of its photo."""
        if not all(record.get(name) for name in ("image", "question", "split")):
            return Problem(reason="has no 'image', 'question' and 'split'")
        image, answer = str(record["image"]), record.get("answer")
        answer = answer.replace("_", " ") if isinstance(answer, str) else answer
        return Entry(
            item_id=image,
            identity=image,
            group=image,
            split=str(record["split"]),
            captions=((0, record["question"]), (1, answer)),
            role={0: "question", 1: "answer"},
            media=image,
        )
