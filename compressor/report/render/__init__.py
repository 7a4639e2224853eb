"""A report as text: JSON, markdown, JUnit."""
