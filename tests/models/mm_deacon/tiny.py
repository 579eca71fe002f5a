"""A tiny MM-Deacon: real tokenizers with small vocabularies, real molecules with their names, random weights."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_molrep.models.mm_deacon import (
    MMDeaconConfig,
    MMDeaconForPreTraining,
    MMDeaconModel,
    MMDeaconProcessor,
)

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
MAX_LENGTH = 48

# Atom-level SMILES (Schwaller et al. 2019); a bracket atom is taken apart, so that a small vocabulary holds them all.
SMILES_PIECES = r"Cl|Br|Si|Se|Na|Li|Mg|Fe|Zn|Pt|@@|%[0-9]{2}|."
SMILES_VOCABULARY = [
    *["Cl", "Br", "Si", "Se", "Na", "Li", "Mg", "Fe", "Zn", "Pt", "@@", "@"],
    *"CNOSPFIBHKcnospbh",
    *"()[]=#-+/\\:.*$%",
    *"0123456789",
]
# Stems and endings of the names below, then single characters.
IUPAC_PIECES = (
    r"hydroxy|oxy|acetyl|methyl|ethyl|propan|butan|phenyl|phenol|benzene|benzoic|acid|amine|amino|chloro|bromo|fluoro|"
    r"pyridin|purin|imidazol|cyclo|hexan|pentan|prop|meth|eth|but|tri|di|ane|ene|one|ol|yl|."
)
IUPAC_VOCABULARY = [
    *[piece for piece in IUPAC_PIECES.split("|") if piece != "."],
    *"abcdefghijklmnopqrstuvwxyz",
    *"0123456789",
    *"-,()[] ;.'RSEZNHCO",
]

# Real pairs of different lengths; isomers among them, a ring, a salt, stereo marks.
PAIRS = [
    ("CCO", "ethanol"),
    ("COC", "methoxymethane"),
    ("c1ccccc1O", "phenol"),
    ("CC(=O)Oc1ccccc1C(=O)O", "2-acetyloxybenzoic acid"),
    ("C[C@H](N)C(=O)O", "(2S)-2-aminopropanoic acid"),
    ("Clc1ccncc1", "4-chloropyridine"),
    ("CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "1,3,7-trimethylpurine-2,6-dione"),
    ("C/C=C/C", "(E)-but-2-ene"),
]
SMILES = [smiles for smiles, _ in PAIRS]
NAMES = [name for _, name in PAIRS]


def tiny_tokenizer(pieces: str, vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the matches of a regular expression, `<s> ... </s>`; anything else is `<unk>`."""
    words = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *vocabulary]))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )


def tiny_processor(**options) -> MMDeaconProcessor:
    """The processor of the tiny model; `options` go to [`MMDeaconProcessor`]."""
    return MMDeaconProcessor(
        tiny_tokenizer(SMILES_PIECES, SMILES_VOCABULARY), tiny_tokenizer(IUPAC_PIECES, IUPAC_VOCABULARY), **options
    )


def tiny_config(smiles: dict | None = None, iupac: dict | None = None, **options) -> MMDeaconConfig:
    """
    Two layers per tower, hidden 32 and 24, projection 16, no dropout. `smiles` and `iupac` change a tower,
    `options` the whole.
    """
    tower = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    }
    processor = tiny_processor()
    smiles_config = {
        **tower,
        "vocab_size": len(processor.tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        **(smiles or {}),
    }
    iupac_config = {
        **tower,
        "vocab_size": len(processor.iupac_tokenizer),
        "hidden_size": 24,
        "intermediate_size": 48,
        **(iupac or {}),
    }
    return MMDeaconConfig(
        smiles_config=smiles_config,
        iupac_config=iupac_config,
        **{"projection_dim": 16, "classifier_dropout": 0.0, "interaction_hidden_size": 20, **options},
    )


def save_tiny_checkpoint(folder: str | Path, pre_training: bool = False, seed: int = 0, **options) -> str:
    """Random weights, configuration and processor in `folder`; `pre_training` keeps the temperature too. The folder."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (MMDeaconForPreTraining if pre_training else MMDeaconModel)(tiny_config(**options))
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)
