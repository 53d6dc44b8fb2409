"""Grad-CAM and attention maps of video clips: `vswin explain`."""
