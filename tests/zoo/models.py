"""The zoo's own healthy models, all of them; `hf` holds those of the transformers library."""

from __future__ import annotations

from zoo import language, others, sequences, vision
from zoo.case import ZooModel

OWN: tuple[ZooModel, ...] = (
    ZooModel("smallest", others.smallest),
    ZooModel("mlp_penalty", others.mlp_penalty),
    ZooModel("gpt", language.gpt),
    ZooModel("gpt_dropout", language.gpt_dropout),
    ZooModel("gpt_explicit", language.gpt_explicit),
    ZooModel("gpt_explicit_dropout", language.gpt_explicit_dropout),
    ZooModel("gpt_checkpoint", language.gpt_checkpoint),
    ZooModel("llama_like", language.llama_like),
    ZooModel("tied_lm", language.tied_lm),
    ZooModel("experts", language.experts),
    ZooModel("experts_sparse", language.experts_sparse, origin="tape"),
    ZooModel("vit", vision.vit),
    ZooModel("resnet", vision.resnet),
    ZooModel("batch_norm_cnn", vision.batch_norm_cnn),
    ZooModel("unet", vision.unet),
    ZooModel("autoencoder", vision.autoencoder),
    ZooModel("vae", vision.vae),
    ZooModel("vq_vae", vision.vq_vae),
    ZooModel("normed_weights", vision.normed_weights),
    ZooModel("lstm_lm", sequences.lstm_lm),
    ZooModel("gru_classifier", sequences.gru_classifier),
    ZooModel("unrolled", sequences.unrolled),
    ZooModel("cbow", sequences.cbow),
    ZooModel("bag_of_words", sequences.bag_of_words),
    ZooModel("skip_gram", sequences.skip_gram),
    ZooModel("dilated", sequences.dilated),
    ZooModel("graph_net", sequences.graph_net),
    ZooModel("contrastive", others.contrastive),
    ZooModel("triplet", others.triplet),
    ZooModel("ppo", others.ppo),
    ZooModel("grpo", others.grpo),
    ZooModel("branching", others.branching, origin="tape"),
    ZooModel("in_place", others.in_place),
    ZooModel("frozen", others.frozen),
    ZooModel("autocast", others.autocast),
)
