"""The WebSocket listener: sockets to sessions; picows stays in `websocket.py`."""
