"""Constants and wire layouts, each citing its source; no behaviour."""
