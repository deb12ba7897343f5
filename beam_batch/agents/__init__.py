"""Agents as row workers: cards, tools, MCP servers, skills, workflows."""
