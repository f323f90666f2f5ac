"""Tables 1 and 2 of the paper, typed in: Li & Wang, "Joint Learning of Attended Zero-Shot Features and
Visual-Semantic Mapping". Names stand as printed there (LESAE is spelt LASAE in Table 2). `published` corrects what the
paper has mixed up, and adds FLO and the sources."""

from __future__ import annotations

from typing import NamedTuple

DATASETS = ("awa1", "awa2", "cub", "sun")
TITLES = {"awa1": "AwA1", "awa2": "AwA2", "cub": "CUB", "sun": "SUN", "apy": "aPY", "flo": "FLO"}

_TABLE_1 = """
ConSE         45.6 44.5 34.3 38.8
DeViSE        54.2 59.7 52.0 56.5
ESZSL         58.2 58.6 53.9 54.5
ALE           59.9 62.5 54.9 58.1
SJE           65.6 61.9 53.9 53.7
SSE           60.1 61.0 43.9 51.5
SynC          54.0 46.6 55.6 56.3
SAE           65.4 66.2 53.6 59.7
LESAE         66.1 68.4 53.9 60.0
Relation Net  68.2 64.2 55.6 -
DCN           65.2 -    56.2 61.8
GAZSL         68.2 -    55.8 61.3
f-CLSWGAN     68.2 -    57.3 60.8
Ours w/o SR   66.8 63.6 55.1 57.9
Ours          69.5 70.4 59.4 59.6
"""

_TABLE_2 = """
ESZSL         75.6 6.6  12.1  77.8 5.9  11.0  63.8 12.6 21.0  27.9 11.0 15.8
ALE           76.1 16.8 27.5  81.8 14.0 23.9  62.8 23.7 34.4  33.1 21.8 26.3
SJE           74.6 11.3 19.6  73.9 8.0  14.4  59.2 23.5 33.6  30.5 14.7 19.8
SSE           80.5 7.0  12.9  82.5 8.1  14.8  46.9 8.5  14.4  36.4 2.1  4.0
SynC          87.3 8.9  16.2  90.5 10.0 18.0  70.9 11.5 19.8  43.3 7.9  13.4
ConSE         88.6 0.4  0.8   90.6 0.5  1.0   72.2 1.6  3.1   39.9 6.8  11.6
DeViSE        68.7 13.4 22.4  74.7 17.1 27.8  53.0 23.8 32.8  27.4 16.9 20.9
SAE           77.1 1.8  3.5   82.2 1.1  2.2   54.0 7.8  13.6  18.0 8.8  11.8
LASAE         70.2 19.1 30.0  70.6 21.8 33.3  53.0 24.3 33.3  34.7 21.9 26.9
DCN           84.2 25.5 39.1  -    -    -     60.7 28.4 38.7  37.0 25.5 30.2
SE-GZSL       67.8 56.3 61.5  68.1 58.3 62.8  53.3 41.5 46.7  30.5 40.9 34.9
f-CLSWGAN     68.9 52.1 59.4  61.4 57.9 59.6  57.7 43.7 49.7  36.6 42.6 39.4
Relation Net  91.3 31.4 46.7  93.4 30.0 45.3  61.1 38.1 47.0  -    -    -
Ours w/o SR   88.4 34.5 49.6  89.5 19.7 32.3  53.6 33.2 41.0  35.9 20.4 26.0
Ours w/o C    88.8 37.3 52.5  91.6 24.5 38.3  59.8 36.6 45.4  36.6 23.2 28.4
Ours          73.5 61.9 67.2  73.8 63.9 68.5  45.1 52.1 48.3  34.5 28.4 31.2
"""


def _read(text: str, figures: int) -> dict[str, dict[str, tuple[float | None, ...]]]:
    table = {}
    for line in text.strip().splitlines():
        words = line.split()
        cells = [None if w == "-" else float(w) for w in words[-figures * len(DATASETS) :]]
        name = " ".join(words[: -figures * len(DATASETS)])
        table[name] = {
            dataset: tuple(cells[i * figures : (i + 1) * figures]) for i, dataset in enumerate(DATASETS)
        }
    return table


TABLE_1 = _read(_TABLE_1, 1)
"""Method -> data set -> (T1,), percent; None where no result was reported."""

TABLE_2 = _read(_TABLE_2, 3)
"""Method -> data set -> (S, U, H), percent; None where no result was reported."""

_FLO = {
    "DeViSE": (45.9, 16.2),
    "ESZSL": (51.0, 19.0),
    "ALE": (48.5, 21.9),
    "SJE": (53.4, 21.5),
    "GAZSL": (60.5, 41.2),
    "f-CLSWGAN": (67.2, 65.6),
}
"""Method -> (T1, H) on FLO, 102 classes, ResNet-101."""

GBU = "Xian et al., TPAMI 2019"
_SOURCES = {
    **dict.fromkeys(("ConSE", "DeViSE", "ESZSL", "ALE", "SJE", "SSE", "SynC"), GBU),
    "SAE": f"T1: not that of {GBU}; H: {GBU}",
    "LESAE": "the paper's tables only",
    "Relation Net": "its authors' paper and README",
    "DCN": "the paper's tables only",
    "GAZSL": "its authors' README",
    "f-CLSWGAN": "Xian et al., CVPR 2018",
    "SE-GZSL": "Verma et al., CVPR 2018, by later tables",
}
_FLO_SOURCES = dict.fromkeys(_FLO, "Xian et al., CVPR 2018, from memory") | {
    "GAZSL": _SOURCES["GAZSL"],
    "f-CLSWGAN": _SOURCES["f-CLSWGAN"],
}

TABLE_1_NOTE = (
    "SAE's published T1 is not that of the comparison from which the rows above it are taken "
    f"({GBU}: 53.0, 54.1, 33.3, 40.3)."
)
TABLE_2_NOTE = "Published f-CLSWGAN as printed; the paper exchanges its AwA1 and AwA2 figures."


class Published(NamedTuple):
    """T1 and H, percent, None where no result was reported, and where they were published."""

    T1: float | None
    H: float | None
    source: str


def published(label: str, dataset: str) -> Published:
    """What was published of a method on a data set, corrected where the paper has exchanged figures.

    Args:
        label: the method's label.
        dataset: its name on the command line.
    """
    if dataset == "flo" and label in _FLO:
        return Published(*_FLO[label], _FLO_SOURCES[label])
    swapped = {"awa1": "awa2", "awa2": "awa1"} if label == "f-CLSWGAN" else {}
    (T1,) = TABLE_1.get(label, {}).get(dataset, (None,))
    cells = TABLE_2.get("LASAE" if label == "LESAE" else label, {})
    H = cells.get(swapped.get(dataset, dataset), (None,))[-1]
    source = "" if T1 is H is None else _SOURCES.get(label, "the paper")
    return Published(T1, H, source)
