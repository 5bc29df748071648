"""What a check says: one record, shown as text, as one offline HTML page, as JSON, SARIF or GitHub annotations."""

from fanin.report.record import Report

__all__ = ["Report"]
