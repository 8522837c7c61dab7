"""Tests of `mlplatform.calendars`."""
