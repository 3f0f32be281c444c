"""Measurements of the real page, run by hand: they print figures and judge nothing."""
