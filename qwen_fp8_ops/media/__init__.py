"""The media server: one folder over HTTP, read only, for the engine and for people.

    python -m qwen_fp8_ops.media --root media --port 8080

One process, one asyncio loop, files sent by the kernel (sendfile). Bare prototypes that do the same system calls for a file of
4 KiB, 16 connections, two cores: httptools on asyncio 43,000 requests/s, granian 17,000 (RSGI file answers) to 32,000 (read in
Python), a thread per client 10,000; the whole server here 15,000, because it answers more questions per request. Granian also
opens a file by its path a second time, after the jail looked. Within the room:

    server      listens, ends on signals, closes what idles
    connection  one client: bytes to requests, answers to bytes
    message     what a request and an answer are
    answer      request -> answer; the whole behaviour, no sockets
    jail        which paths lie under the root
    conditions  ETag, conditional requests, ranges
    listing     a folder as HTML or JSON
    kinds       file name -> content type
"""
