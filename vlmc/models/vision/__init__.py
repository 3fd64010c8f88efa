"""The vision tower: plain, fused, and as an artifact stores it."""
