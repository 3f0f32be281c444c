"""Real text made fit to train on, as pre-training teams do it, with datatrove.

Rows are normalised, filtered by language and quality, freed of exact and near duplicates, and dropped
where they repeat a prompt that is kept for measuring. What each filter removed is counted and shown.
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr
from itertools import islice
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.logging import logger
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text
from datatrove.utils.word_tokenizers import WhitespaceTokenizer
from tqdm import tqdm

from pipeline.checkpoint import Family, read_json_lines, recover, write_json_lines, write_whole, writing
from pipeline.corpus.cards import Corpus
from pipeline.corpus.outside import outside_prompts
from pipeline.corpus.ranking_prompts import held_out_prompts
from pipeline.corpus.sources import check_columns, rows
from pipeline.errors import InputError
from pipeline.recipe import DocumentSource, Recipe

COLUMNS = {
    "prose": ("text",),
    "quiz": ("question", "answer", "choices"),
    "dialogue": ("turns",),
    "instructions": ("instruction", "context", "response"),
}
ROWS = "rows.jsonl"
REPORT = "report.json"
NEAR_DUPLICATE = "near duplicate"
EXAMPLES = 5
EXAMPLE_LENGTH = 160


def clean(recipe: Recipe, family: Family, corpus: Corpus) -> dict[str, Path]:
    """Clean every source that the recipe names for the base stage.

    Returns, by source name, a JSON Lines file of the rows that remain: `id` and the columns of the source's
    kind, normalised. A source that is clean already is not read again. The counts go to
    `corpus/cleaning.json` in the family, examples of what was removed to `corpus/removed.jsonl`.
    """
    prompts = [prompt.prompt for prompt in held_out_prompts(corpus, recipe)]
    prompts += [prompt.prompt for prompt in outside_prompts()]
    folders = {source.name: cleaned(source, prompts, family) for source in distinct_sources(recipe)}
    reports = {name: json.loads((folder / REPORT).read_text()) for name, folder in folders.items()}
    examples = [line for folder in folders.values() for line in read_json_lines(folder / "removed.jsonl")]
    write_whole(family.path / "corpus" / "cleaning.json", json.dumps(reports, indent=2) + "\n")
    write_json_lines(family.path / "corpus" / "removed.jsonl", examples)
    return {name: folder / ROWS for name, folder in folders.items()}


def distinct_sources(recipe: Recipe) -> list[DocumentSource]:
    sources: dict[str, DocumentSource] = {}
    for source in recipe.corpus.sources:
        if sources.setdefault(source.name, source) != source:
            raise InputError(f"two different sources are named {source.name!r}; rename one in the recipe")
    return list(sources.values())


def cleaned(source: DocumentSource, prompts: list[str], family: Family) -> Path:
    """The folder of a source, cleaned now unless it is already: `rows.jsonl`, `report.json`, `removed.jsonl`."""
    decisive = [
        source.model_dump_json(exclude={"share", "licence"}),
        *sorted(prompts),
        Path(__file__).read_text(encoding="utf-8"),
    ]
    digest = hashlib.sha256("\0".join(decisive).encode()).hexdigest()
    target = family.work("corpus") / source.name
    if not is_clean(target, digest):
        with writing(target) as folder:
            steps = folder / "steps"
            filter_rows(source, prompts, steps)
            drop_near_duplicates(steps)
            write_json_lines(folder / ROWS, [document["metadata"]["row"] for document in written(steps / "kept")])
            report = write_report(source, folder, digest)
            shutil.rmtree(steps)
        print(f"cleaned {source.name}: {report['kept']:,} of {report['rows']:,} rows kept")
    return target


def is_clean(target: Path, digest: str) -> bool:
    """Whether the folder was made from the same source, held-out prompts and filters."""
    recover(target)
    report = target / REPORT
    return report.is_file() and json.loads(report.read_text(encoding="utf-8"))["sha256"] == digest


def filter_rows(source: DocumentSource, prompts: list[str], steps: Path) -> None:
    """Drop every row that is unfit by itself."""
    filters = row_filters(source.kind, prompts)
    for name, row_filter in filters.items():
        row_filter.exclusion_writer = writer(steps / "removed" / name)
    execute([Rows(source), *filters.values(), writer(steps / "filtered")], steps / "logs" / "filters")


def drop_near_duplicates(steps: Path) -> None:
    """datatrove's four MinHash passes: of rows that share about 72 % of their 5-grams, one stays."""
    # The default hash, xxhash, is used in a way that xxhash 4 refuses.
    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    signatures, buckets, duplicates = (str(steps / name) for name in ("signatures", "buckets", "duplicates"))
    signing = [reader(steps / "filtered"), MinhashDedupSignature(signatures, config, Words())]
    dropping = [
        reader(steps / "filtered"),
        MinhashDedupFilter(duplicates, writer(steps / "removed" / NEAR_DUPLICATE)),
        writer(steps / "kept"),
    ]
    logs = steps / "logs"
    # The clustering draws a progress bar of its own.
    with redirect_stderr(io.StringIO()):
        execute(signing, logs / "signatures")
        execute([MinhashDedupBuckets(signatures, buckets, config=config)], logs / "buckets", config.num_buckets)
        execute([MinhashDedupCluster(buckets, duplicates, config)], logs / "clusters")
        execute(dropping, logs / "duplicates")


def execute(steps: list[PipelineStep], logs: Path, tasks: int = 1) -> None:
    """Run steps in this process. datatrove's executors for Slurm and Ray take the same steps."""
    logger.disable("datatrove")
    InProcess(steps, tasks=tasks, workers=1, logging_dir=str(logs)).run()


class InProcess(LocalPipelineExecutor):
    """Runs one task after the other. The local executor's helper process would outlive a killed run."""

    def run(self) -> None:
        for rank in range(self.tasks):
            self._run_for_rank(rank)


def writer(folder: Path) -> JsonlWriter:
    return JsonlWriter(str(folder), compression=None)


def reader(folder: Path) -> JsonlReader:
    return JsonlReader(str(folder), compression=None)


def written(folder: Path) -> list[dict[str, Any]]:
    """What a writer wrote; it makes no file where there was nothing to write."""
    return [line for file in sorted(folder.glob("*.jsonl")) for line in read_json_lines(file)]


def write_report(source: DocumentSource, folder: Path, digest: str) -> dict[str, Any]:
    kept = len(read_json_lines(folder / ROWS))
    names = [*row_filters(source.kind, []), NEAR_DUPLICATE]
    removed = {name: written(folder / "steps" / "removed" / name) for name in names}
    report = {
        "sha256": digest,
        "rows": kept + sum(map(len, removed.values())),
        "kept": kept,
        "removed": {name: len(documents) for name, documents in removed.items()},
    }
    examples = [
        {
            "source": source.name,
            "filter": name,
            "reason": document["metadata"].get("filter_reason", name),
            "text": document.get("text", "")[:EXAMPLE_LENGTH],
        }
        for name, documents in removed.items()
        for document in islice(documents, EXAMPLES)
    ]
    write_whole(folder / REPORT, json.dumps(report, indent=2) + "\n")
    write_json_lines(folder / "removed.jsonl", examples)
    return report


class Rows(PipelineStep):
    """Reads a source and normalises its strings. A document's text is what the filters look at."""

    type, name = "READER", "rows"

    def __init__(self, source: DocumentSource) -> None:
        super().__init__()
        self.source = source

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        name, total = f"cleaning {self.source.name}", self.source.rows
        for number, row in enumerate(tqdm(rows(self.source), name, total, unit="row", mininterval=2)):
            check_columns(self.source, COLUMNS[self.source.kind], row)
            row = {"id": f"{self.source.name}/{number}"} | normalised(row)
            if self.source.kind == "prose":
                row["text"] = prose(row["text"], row.get("title") or "")
            yield Document(as_text(self.source.kind, row), str(row["id"]), metadata={"row": row})


def normalised(value: Any) -> Any:
    """The same value with every string in it normalised."""
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, list):
        return [normalised(item) for item in value]
    if isinstance(value, dict):
        return {key: normalised(item) for key, item in value.items()}
    return value


CONTROL_TOKEN = re.compile(r"<\|[^<>|\n]*\|>")
CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]")
PLAIN = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\u2022\u00b7", "-")
    | dict.fromkeys("\u2014\u2015", " - ")
    | {"\u2026": "..."}
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufffd")
)


def normalise(text: str) -> str:
    """Repaired encoding, NFC, straight quotes, plain dashes and spaces, no control tokens, no citation marks."""
    from ftfy import fix_text

    text = fix_text(text, normalization="NFC").translate(PLAIN)
    # Removing one token may put the two halves of another together.
    while (shorter := CONTROL_TOKEN.sub("", text)) != text:
        text = shorter
    lines = [" ".join(line.split()) for line in CITATION.sub("", text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def prose(text: str, title: str) -> str:
    """The text without its title on top, and without line breaks that only kept a page narrow."""
    text = text.removeprefix(title + "\n").strip()
    return re.sub(r"(?<=[^.!?:\n])\n(?=[a-z])", " ", text)


def as_text(kind: str, row: dict[str, Any]) -> str:
    """A row as one text, for the filters to judge."""
    if kind == "quiz":
        return "\n".join([row["question"], *(row["choices"] or [row["answer"]])])
    if kind == "dialogue":
        return "\n".join(turn["text"] if isinstance(turn, dict) else turn for turn in row["turns"])
    return "\n".join(row[column] or "" for column in COLUMNS[kind])


class Words(WhitespaceTokenizer):
    """Words as Gopher counts them: what stands between spaces. datatrove's own tokenizer wants spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def row_filters(kind: str, prompts: list[str]) -> dict[str, BaseFilter]:
    """The filters that look at one row, by the name that the report gives them.

    The published thresholds are for web pages of hundreds of words. Here a row may be one question or a
    children's story that lives from repetition, so they are set by what they removed from such text.
    """
    words: Any = Words()
    if kind == "prose":
        filters: dict[str, BaseFilter] = {
            "markup": MarkupLines(),
            "language": English(),
            "quality": GopherQualityFilter(min_doc_words=20, min_stop_words=1, language=words),
            "layout": FineWebQualityFilter(short_line_thr=1, char_duplicates_ratio=0.3, language=words),
            "repetition": GopherRepetitionFilter(language=words),
        }
    else:
        filters = {
            "markup": Markup(),
            "language": English(),
            "quality": GopherQualityFilter(
                min_doc_words=4,
                min_avg_word_length=2,
                max_bullet_lines_ratio=None,
                max_non_alpha_words_ratio=None if kind == "quiz" else 0.7,
                min_stop_words=None,
                language=words,
            ),
        }
    if kind in ("dialogue", "instructions"):
        # A question is repeated in its answer, and a given text in its summary.
        filters["repetition"] = GopherRepetitionFilter(
            dup_line_char_frac=0.3, top_n_grams=(), dup_n_grams=((5, 0.4),), language=words
        )
    return filters | {
        "held-out prompt": HeldOut(prompts),
        "exact duplicate": ExactDuplicate(),
    }


class English(BaseFilter):
    """Drops text in another language, by py3langid, whose model comes with the package."""

    type, name = "FILTER", "language"

    def __init__(self) -> None:
        super().__init__()
        self.identifier: Any = None

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        if self.identifier is None:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier

            self.identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        language, probability = self.identifier.classify(doc.text[:1000])
        return language == "en" or probability < 0.9 or (False, language)


MARKUP = {
    "address": re.compile(r"https?:|www\.|\S@\S+\.\w", re.IGNORECASE),
    "code": re.compile(r"[{}\\]|</?\w+>|\blorem ipsum\b|\bjavascript\b", re.IGNORECASE),
    "script": re.compile(r"[^\u0000-\u024f\u2000-\u20cf]{2}|[\u2460-\u24ff]"),
    "label": re.compile(r"^\w+:$"),
}


def markup(text: str) -> str | None:
    """What a text holds that is no plain text: an address, markup or code, another script, a label of nothing."""
    return next((reason for reason, pattern in MARKUP.items() if pattern.search(text)), None)


class Markup(BaseFilter):
    """Drops rows with web or mail addresses, markup or program code, or another script."""

    type, name = "FILTER", "markup"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        reason = markup(doc.text)
        return reason is None or (False, reason)


class MarkupLines(BaseFilter):
    """Drops such lines of prose, as C4 does (Raffel et al. 2020), and rows that lose half of their text by it.

    The rest of the row ends with its last whole sentence: extracts are often cut in the middle of one.
    """

    type, name = "FILTER", "markup"

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        lines = [line for line in doc.text.split("\n") if markup(line) is None]
        text = whole_sentences(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())
        if 2 * len(text) < len(doc.text):
            return False, markup(doc.text) or "no whole sentence"
        doc.text = doc.metadata["row"]["text"] = text
        return True


def whole_sentences(text: str) -> str:
    """The text up to its last end of a sentence."""
    ends = [match.end() for match in re.finditer(r"[.!?][\"')\]]*(?=\s|$)", text)]
    return text[: ends[-1]] if ends else ""


class HeldOut(BaseFilter):
    """Drops text that repeats a prompt which is kept for measuring.

    Prompts of five to eight words count wherever they stand, longer ones by any eight words in a row, as in
    GPT-3's decontamination (Brown et al. 2020, arXiv:2005.14165, appendix C). Shorter ones are everyday
    phrases and count as whole lines only.
    """

    type, name = "FILTER", "held-out prompt"
    shortest, longest = 5, 8

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        texts = [compared(prompt) for prompt in prompts]
        self.lines = {words for words in texts if 1 < len(words) < self.shortest}
        self.parts = {
            part for words in texts if len(words) >= self.shortest
            for part in ngrams(words, min(len(words), self.longest))
        }  # fmt: skip

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        for line in doc.text.splitlines():
            words = compared(line)
            if words in self.lines:
                return False, " ".join(words)
            for size in range(self.shortest, self.longest + 1):
                for part in ngrams(words, size):
                    if part in self.parts:
                        return False, " ".join(part)
        return True


def compared(text: str) -> tuple[str, ...]:
    """The words of a text without case, punctuation and accents."""
    return tuple(simplify_text(text, TextNormConfig(norm_numbers=False)).split())


class ExactDuplicate(BaseFilter):
    """Drops text that has come before, but for case, punctuation, spaces and numbers."""

    type, name = "FILTER", "exact duplicate"

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[bytes] = set()

    def filter(self, doc: Document) -> bool:
        digest = hashlib.sha256(simplify_text(doc.text).encode()).digest()
        new = digest not in self.seen
        self.seen.add(digest)
        return new
