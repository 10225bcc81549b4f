"""Arlow Pretrain: masked-autoencoder pretraining of the Arlow vision tower."""
