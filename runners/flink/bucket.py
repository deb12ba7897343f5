"""Make a bucket where there is none, and put a folder's JSONL files into it, below input/.

Usage: python bucket.py BUCKET FOLDER, with the store's address and keys in AWS_* variables.
"""

import sys
from pathlib import Path

import s3fs


def main(bucket: str, folder: str) -> None:
    """Make the bucket and copy the files; both can be done again."""
    store = s3fs.S3FileSystem()
    if not store.exists(bucket):
        store.mkdir(bucket)
    for path in sorted(Path(folder).glob("*.jsonl")):
        store.put_file(str(path), f"{bucket}/input/{path.name}")
        print(f"s3://{bucket}/input/{path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
