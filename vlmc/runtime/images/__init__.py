"""From image bytes to features on the device."""
