"""From nothing to a figure: python docs/example.py [FOLDER] (a minute on two cores, no GPU, no network)."""

import sys

import matplotlib.pyplot as plt

import amscale

sweep = amscale.Sweep(
    "quick.yaml",  # a configuration that comes with the package; what follows goes on top of it
    name="example",
    storage=sys.argv[1] if len(sys.argv) > 1 else "results",
    model__size=["1.7k", "6.6k"],  # N: attention and feed-forward parameters
    data__size=["4k", "16k"],  # D: unique training tokens
    data={"corpus": "question_formation", "documents": "2k", "validation": 200},
    train={"steps": 60, "batch_tokens": 700, "learning_rate": 1e-2, "validate_every": 10, "validation_tokens": "2k"},
)
print(sweep.plan()[["label", "N", "D", "flops", "seconds"]])
sweep.run()  # trains what has no result yet; run it again, and nothing is left to do
print(sweep.results()[["N", "D", "train_loss", "validation_loss_least", "entropy_per_token"]])
for estimate in sweep.fit(resamples=100):
    print(f"{estimate.id:28} {estimate.value} {estimate.interval or estimate.reason}")
figure, axes = plt.subplots()
for label, run in sweep.metrics("validation").groupby("trial"):
    axes.plot(run["step"], run["loss"], label=label)
axes.set(xlabel="step", ylabel="validation loss (nats per token)")
axes.legend()
figure.savefig(f"{sweep.address}/validation.png")
