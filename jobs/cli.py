"""The command line `cellular`: one command a job file. Their heavy imports wait until a command runs."""

from typing import Annotated

import typer

from cellular import __version__
from jobs import (
    append_phrase_bank,
    bank_info,
    build_phrase_bank,
    compress_ret,
    console,
    create_api_key,
    decode,
    decode_corpus,
    demo,
    doctor,
    embed,
    evaluate,
    fit_lsa,
    generate,
    info,
    search_bank,
    serve,
    show_lattice,
    train_adapter,
    train_lattice,
    train_ret,
    train_text_to_text,
    verify_bank,
)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
bank = typer.Typer(no_args_is_help=True, help="Build, extend, search and check phrase banks.")
app.add_typer(bank, name="bank")
ret = typer.Typer(no_args_is_help=True, help="Train and compress decoders.")
app.add_typer(ret, name="ret")
text_to_text = typer.Typer(no_args_is_help=True, help="Train the model that needs no teacher.")
app.add_typer(text_to_text, name="text-to-text")
adapter = typer.Typer(no_args_is_help=True, help="Train adapters between teachers, and fit a teacher.")
app.add_typer(adapter, name="adapter")
lattice = typer.Typer(no_args_is_help=True, help="Train lattices of cells and look into them.")
app.add_typer(lattice, name="lattice")

bank.command("build")(build_phrase_bank.main)
bank.command("append")(append_phrase_bank.main)
bank.command("info")(bank_info.main)
bank.command("search")(search_bank.main)
bank.command("verify")(verify_bank.main)
ret.command("train")(train_ret.main)
ret.command("compress")(compress_ret.main)
text_to_text.command("train")(train_text_to_text.main)
lattice.command("train")(train_lattice.main)
lattice.command("show")(show_lattice.main)
adapter.command("train")(train_adapter.main)
adapter.command("fit-lsa")(fit_lsa.main)
app.command("embed")(embed.main)
app.command("decode")(decode.main)
app.command("decode-corpus")(decode_corpus.main)
app.command("generate")(generate.main)
app.command("evaluate")(evaluate.main)
app.command("serve")(serve.main)
app.command("api-key")(create_api_key.main)
app.command("demo")(demo.main)
app.command("info")(info.main)
app.command("doctor")(doctor.main)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cellular {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn embeddings back into text: phrase banks, decoders, serving."""


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


if __name__ == "__main__":
    main()
