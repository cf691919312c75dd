"""Standard virtio devices for every kind of Xen guest."""
