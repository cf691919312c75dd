"""virtio-rng: random bytes for the guest (virtio 1.3 §5.4). The smallest device there is, in plain Python."""
