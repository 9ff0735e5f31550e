"""Describe a finished trial on one page, and write it as a model that transformers loads.

examples:
  python -m amscale.card results/quick/trials/LABEL > card.md
  python -m amscale.card results/gpt2/trials/LABEL --huggingface my_model      for AutoModelForCausalLM.from_pretrained

settings that matter: none.
"""


def card(trial: str, huggingface: str | None = None, json: bool = False) -> None:
    """Print one Markdown table: N by every count, shape, tokens, compute, schedule, losses, precision, electricity.

    Args:
        trial: the trial's folder, or <URI of its sweep>/trials/<label>.
        huggingface: a folder that gets weights, config, tokenizer and the card; of families that transformers has.
        json: print one JSON document on standard output instead.
    """
    import sys
    from contextlib import redirect_stdout
    from pathlib import Path

    from amscale.cli import print_json
    from amscale.reporting.card import card_rows, finished_result, markdown
    from amscale.trials.sweep_store import open_trial

    with open_trial(trial) as store:
        result = finished_result(store)
        rows = card_rows(result)
        page = markdown(result, rows)
        difference = None
        if huggingface is not None:
            from amscale.reporting.huggingface_folder import write_huggingface

            with redirect_stdout(sys.stderr):  # libraries print there when they are imported
                difference = write_huggingface(store, Path(huggingface), page)
    if json:
        document = {"label": result.label, "rows": dict(rows), "markdown": page}
        print_json(document | {"huggingface": huggingface, "largest_logit_difference": difference})
    else:
        print(page, end="")


if __name__ == "__main__":
    from amscale.cli import run

    run(card)
