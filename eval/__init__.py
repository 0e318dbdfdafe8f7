"""Experiments that write rows, and the tables, verdicts and pages made from them."""

from medil.system.threads import wait_passively

wait_passively()  # before any module here imports torch
