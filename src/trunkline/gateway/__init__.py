"""The WebSocket listener: sockets to sessions; picows stays in `parsing.py` and `socket.py`."""
