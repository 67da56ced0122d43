"""Validated settings of every part. Each field's description is what `--help` and the errors show."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
INT8 = ":int8"  # ends the name of a teacher in int8


class Settings(BaseModel):
    """Immutable; an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Device = Literal["auto", "cpu", "cuda"]


class TeacherConfig(Settings):
    """Which model makes the embeddings, and how it runs. Only `name` decides what the vectors mean.

    int8 is part of the name, since its vectors are a space of their own: precision="int8" makes the name
    all-MiniLM-L6-v2:int8, and that name makes the precision int8.
    """

    name: str = Field("all-MiniLM-L6-v2", description="a name in TEACHERS, a folder, or a hub name")
    precision: Literal["auto", "fp32", "bf16x2", "bf16", "int8"] = Field(
        "auto",
        description="auto: bf16 where the processor multiplies it natively, else fp32; never int8. "
        "bf16x2: weights of twice as many bits where the kernel in C runs, else fp32",
    )
    device: Device = "auto"
    batch_tokens: PositiveInt = Field(
        1024, description="tokens in one forward pass, padding counted; the one in C takes its own"
    )
    threads: PositiveInt | None = Field(None, description="None: every core this process may use")

    @model_validator(mode="before")
    @classmethod
    def _int8_is_in_the_name(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("name", cls.model_fields["name"].default)
        if values.get("precision") == "int8" and isinstance(name, str) and not name.endswith(INT8):
            return {**values, "name": name + INT8}
        if isinstance(name, str) and name.endswith(INT8) and values.get("precision", "auto") == "auto":
            return {**values, "precision": "int8"}
        return values

    @model_validator(mode="after")
    def _int8_is_int8(self) -> "TeacherConfig":
        if self.name.endswith(INT8) != (self.precision == "int8"):
            raise ValueError(f"the precision of {self.name} is int8")
        return self

    @property
    def model(self) -> str:
        """The name without its precision."""
        return self.name.removesuffix(INT8)


class CorpusConfig(Settings):
    """Where documents are read from."""

    inputs: tuple[str, ...] = Field(
        min_length=1, description="files, folders, globs; local paths or s3:// URIs"
    )
    format: Literal["auto", "parquet", "jsonl", "csv", "text"] = Field(
        "auto", description="auto: by file name"
    )
    text_column: str = Field("text", description="column or key that holds the text; unused for plain text")
    text_records: Literal["line", "paragraph"] = Field(
        "line", description="a record of plain text: a line, or the lines up to a blank one"
    )
    max_record_bytes: PositiveInt = Field(1 << 20, description="longer records are rejected")


class PhraseRules(Settings):
    """How a document becomes phrases, and which phrases are kept. No rule depends on a language's words."""

    language: str = Field("en", description="ISO 639 code that picks the sentence boundary rules")
    units: tuple[Literal["record", "sentence", "clause", "ngram"], ...] = Field(
        ("sentence",), min_length=1, description="record: the whole document, and nothing else"
    )
    ngram_words: tuple[PositiveInt, PositiveInt] = Field((3, 6), description="shortest and longest n-gram")
    min_characters: PositiveInt = 3
    max_characters: PositiveInt = 300
    min_letter_fraction: Fraction = Field(0.5, description="letters and marks among non-space characters")
    max_repeat_fraction: Fraction = Field(0.5, description="share of the most frequent non-space character")
    min_count: PositiveInt = Field(1, description="occurrences in the corpus below which a phrase is dropped")

    @model_validator(mode="after")
    def _ranges(self) -> "PhraseRules":
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters exceeds max_characters")
        if "record" in self.units and len(self.units) > 1:
            raise ValueError("units: record stands alone")
        if self.ngram_words[0] > self.ngram_words[1]:
            raise ValueError("ngram_words must be (shortest, longest)")
        return self


class IndexConfig(Settings):
    """How a bank is searched."""

    factory: str = Field("auto", description="a FAISS factory string; auto: by the number of phrases")
    training_rows: PositiveInt | None = Field(None, description="None: enough for the number of centroids")
    recall_target: Fraction = Field(
        0.98, description="recall@10 against exact search that the default effort must reach"
    )


class ResourceConfig(Settings):
    """How much of the cluster a build may use. Changes speed, never the result."""

    embedders: PositiveInt | None = Field(
        None, description="actors that hold a teacher; None: as many as the cluster has room for"
    )
    embedder_cpus: float = Field(1.0, gt=0)
    embedder_gpus: float | None = Field(
        None, ge=0, description="of each; None: one if the teacher can use it and there are free ones"
    )
    task_cpus: float = Field(1.0, gt=0, description="CPUs of each reading, deduplicating or indexing task")
    tasks: PositiveInt | None = Field(None, description="such tasks at once; None: as the CPUs allow")


class BuildConfig(Settings):
    """One build of a phrase bank: everything that decides its content, plus the resources."""

    corpus: CorpusConfig
    target: Path = Field(description="folder of the bank, on a file system that every node sees")
    rules: PhraseRules = PhraseRules()
    teacher: TeacherConfig = TeacherConfig()
    index: IndexConfig = IndexConfig()
    embedding_dtype: Literal["float16", "float32"] = "float16"
    shard_rows: PositiveInt | None = Field(
        None, description="phrases a shard, the unit of resume; None: by size"
    )
    append: bool = Field(False, description="add to the bank's current version instead of replacing it")
    resources: ResourceConfig = ResourceConfig()


class DecodingConfig(Settings):
    """How a PhraseBankDecoder turns an embedding into text."""

    assembly_method: Literal["greedy", "weighted", "beam_search", "context_aware"] = "context_aware"
    top_k: PositiveInt = Field(32, description="candidates from one search")
    max_phrases: PositiveInt = Field(3, description="phrases in one assembled text")
    beam_width: PositiveInt = 8
    min_gain: float = Field(0.03, ge=0, description="cosine that a further phrase must add")
    min_score: float = Field(0.0, ge=-1, le=1, description="cosine below which the answer is a fallback")
    frequency_weight: float = Field(0.02, ge=0)
    length_weight: float = Field(0.02, ge=0)
    context_weight: float = Field(0.1, ge=0, description="how much a session's earlier texts count")
    context_turns: PositiveInt = Field(8, description="earlier texts of a session that are remembered")
    enable_caching: bool = True
    cache_size: PositiveInt = Field(10_000, description="answers kept, least recently used first out")
    enable_fallbacks: bool = True
    fallback_text: str = ""
    enable_performance_monitoring: bool = True
    enable_postprocessing: bool = True
    search_effort: PositiveInt | None = Field(None, description="None: the bank's calibrated default")
    recall_target: Fraction = Field(0.97, description="recall@10 that a tuned search effort must reach")
    listed_candidates: int = Field(5, ge=0, description="nearest phrases that a result lists")


class HybridConfig(Settings):
    """How a HybridDecoder finds texts, and how it chooses among them."""

    max_teacher_calls: int = Field(
        33, ge=0, description="texts embedded for a target; 0: scores are estimates"
    )
    phrases: PositiveInt = Field(8, description="nearest phrases of the bank that are considered")
    draws: int = Field(96, ge=2, description="texts that RET draws; those that promise most are embedded")
    temperature: float = Field(0.7, gt=0, description="of the draws")
    top_p: float = Field(1.0, gt=0, le=1, description="of the draws")
    max_length: PositiveInt = Field(128, description="pieces in a text of RET")
    enough: float = Field(0.99, ge=-1, le=1, description="cosine of a phrase from which RET is not asked")
    likelihood_weight: float = Field(0.0015, ge=0, description="cosine that a nat of RET's is worth")
    likelihood_weight_of_estimates: float = Field(
        0.003, ge=0, description="the same, where the teacher is not asked"
    )
    consensus_weight: float = Field(
        0.2, ge=0, description="cosine that saying the same as the others is worth"
    )
    consensus_spread: float = Field(0.1, gt=0, description="cosine by which a text counts e times less in it")


LatticePrecision = Literal["auto", "fp32", "bf16"]
RETPrecision = Literal["fp32", "bf16", "int8", "int4"]


class DecodeCorpusConfig(Settings):
    """Files of embeddings that become files of texts: all that decides what these say, plus the resources."""

    inputs: tuple[str, ...] = Field(
        min_length=1, description="files, folders, globs of .npy, .arrow, .parquet, .jsonl"
    )
    target: Path = Field(description="folder of the texts, on a file system that every node sees")
    keep: tuple[str, ...] = Field((), description="columns of the inputs that go with the texts")
    lattice: str | None = Field(None, description="what embeddings go through first: a name or a folder")
    decoder: Literal["phrase_bank", "ret", "hybrid"] = "ret"
    bank: Path | None = Field(None, description="for phrase_bank and hybrid")
    checkpoint: str | None = Field(None, description="RET's: a name or a folder; None: the packaged one")
    precision: RETPrecision | None = Field(None, description="what RET computes in; None: fp32")
    method: str | None = Field(None, description="of a decoder that has several; None: its default")
    effort: str | None = Field(None, description="of hybrid; None: medium")
    seed: int = 0
    part_rows: PositiveInt | None = Field(None, description="rows a part, the unit of resume; None: by size")
    workers: PositiveInt | None = Field(None, description="that hold a decoder; None: as many as have room")
    worker_cpus: float = Field(1.0, gt=0)
    worker_gpus: float | None = Field(
        None, ge=0, description="of each; None: one if what decodes can use it and there are free ones"
    )


class HeldOutConfig(Settings):
    """Which texts something is evaluated on."""

    data: Path | None = Field(None, description="folder of train and test files; None: CELLULAR_DATA")
    split: Literal["valid", "test"] = "test"
    sets: tuple[str, ...] = Field((), description="test sets; empty: all of the folder that fit")
    limit: PositiveInt = Field(1000, description="texts of a set, at most")
    teacher: TeacherConfig = TeacherConfig()
    cache: Path | None = Field(None, description="folder of embeddings; None: in the user's cache")


class EvaluationConfig(HeldOutConfig):
    """Which decoders are evaluated, and how."""

    decoders: tuple[str, ...] = Field(
        min_length=1,
        description="names in CONTENDERS, folders of checkpoints, the bank's folder, or pipelines' files",
    )
    bank: Path | None = Field(None, description="bank of the training texts, for whatever searches one")
    training_bank: bool = Field(False, description="without a bank: build that of the train files, once")
    checkpoint: Path | None = Field(None, description="RET's weights; None: those of the package")
    engine: str = Field("auto", description="what runs RET: a name in ENGINES; auto: the fastest")
    damages: tuple[str, ...] = Field(
        ("none",), min_length=1, description="what happens to the embeddings first: names in DAMAGES"
    )
    lattices: tuple[str, ...] = Field(
        (), description="names or folders: each decoder that reads embeddings answers behind each as well"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of what samples")


class MappingConfig(HeldOutConfig):
    """What is evaluated of what makes embeddings of embeddings."""

    task: Literal["map", "denoise"]
    checkpoints: tuple[str, ...] = Field((), description="names or folders; empty: those that come along")
    fitted: int = Field(20_000, ge=100, description="training texts that baselines are fitted on")
