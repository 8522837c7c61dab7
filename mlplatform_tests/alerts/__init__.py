"""Alerts, received over HTTP and SMTP on this machine."""
