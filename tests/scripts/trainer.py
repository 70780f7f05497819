"""transformers.Trainer with gradient accumulation, on a tiny GPT-2 with random weights."""

import sys
import tempfile

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

set_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2))
ids = torch.randint(32, (48, 12))
examples = [{"input_ids": row, "labels": row} for row in ids]


class Printing(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            print(float(logs["loss"]).hex(), float(logs["grad_norm"]).hex())


with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder, max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=2, logging_steps=1,
        report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=examples, callbacks=[Printing()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
print(sum(float(p.double().sum()) for p in model.parameters()).hex(), file=sys.stdout)
