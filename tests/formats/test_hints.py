"""A hint is safe: whoever follows it gets right numbers or another clear error, never wrong ones.

Every hint that these messy files and the golden cases print is followed, as a machine would: the options in
it are added to the command, a pipeline is run; hints of what that prints are followed in turn. `MESSY` has
the files as people have them, each with the averages that are right (alpha 0.5), by column.
"""

from __future__ import annotations

import gzip
import io
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from ema_cli.cli import command, make_job
from ema_cli.errors import EmaError
from ema_cli.run.pipeline import run
from tests.conftest import Workshop
from tests.golden.test_cases import CASES, sections, unescape

ALPHA = ("--alpha", "0.5")
STEPS = 4
Values = dict[str, list[float | None]]
# What stands for something of the user's own.
PLACEHOLDERS = {"COLUMN", "NAME", "FILE", "DIR", "DURATION", "N", "..."}


@dataclass(frozen=True)
class Messy:
    """A file, the columns asked for, and what is right for each column that may be smoothed."""

    name: str
    text: str | bytes
    right: Values | list[Values]
    columns: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def ema(*values: float | None) -> list[float | None]:
    """The recursive average with alpha 0.5; blank where a value is missing."""
    out: list[float | None] = []
    held: float | None = None
    for value in values:
        if value is not None:
            held = value if held is None else (held + value) / 2
        out.append(None if value is None else held)
    return out


def tarred(name: str, data: bytes) -> bytes:
    """An archive of that one file."""
    out, member = io.BytesIO(), tarfile.TarInfo(name)
    member.size = len(data)
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


T2, D2 = ema(0, 1), ema(1, 2)
TABLE = "time,temp\n2021-01-01,1\n2021-01-02,3\n"
TOA5 = (
    '"TOA5","CR1000","CR1000","1234","CR1000.Std.27","CPU:prog.CR1","5678","Table1"\n'
    '"TIMESTAMP","RECORD","AirTC","RH"\n"TS","RN","Deg C","%"\n"","","Avg","Smp"\n'
    '"2021-01-01 00:00:00",0,1.5,80\n"2021-01-01 00:10:00",1,2.5,"NAN"\n'
)
BANK = (
    "Umsatzanzeige;Datei erstellt am: 05.02.2024 10:11\n\nIBAN;DE12\nKontoname;Girokonto\nBank;X\n"
    "Saldo;1.234,56;EUR\n\n"
    "Buchung;Auftraggeber;Saldo;Währung;Betrag;Währung\n31.01.2024;REWE;1.234,56;EUR;-45,20;EUR\n"
    "30.01.2024;Firma;1.279,76;EUR;2.500,00;EUR\n"
).encode("cp1252")
METRICS = (
    "# HELP requests The total number.\n# TYPE requests counter\n"
    'requests{code="200"} 1027 1395066363000\nrequests{code="400"} 3 1395066363000\n'
)
ANNOTATIONS = (
    "#group,false,false,true,false\n#datatype,string,long,dateTime:RFC3339,double\n#default,mean,,,\n"
)
INFLUX = (
    f"{ANNOTATIONS},result,table,_time,_value\n,,0,2024-01-01T00:10:00Z,20.5\n,,0,2024-01-01T00:20:00Z,21.5\n\n"
    f"{ANNOTATIONS},result,table,_time,_value\n,,1,2024-01-01T00:10:00Z,10.5\n"
)
SAR = (
    "Linux 5.15.0 (host) \t01/05/2024 \t_x86_64_\t(4 CPU)\n\n12:00:01 AM     CPU     %user     %idle\n"
    "12:10:01 AM     all      1.50     98.00\n12:20:01 AM     all      2.50     97.00\n"
    "Average:        all      2.00     97.50\n"
)
BUOY = (
    "#YY  MM DD mm WSPD  WVHT\n#yr  mo dy mn  m/s     m\n2024 01 01 00  5.0    MM\n2024 01 01 10  6.0   1.2\n"
)
TAR = tarred("a.csv", b"a\n1\n3\n")
JSON = ("--from", "jsonl")
MESSY = [
    Messy("preamble", "Station X\nOwner: me\n\n" + TABLE, {"temp": ema(1, 3)}, ("temp",)),
    Messy("preamble-without-header", "Station X\nOwner: me\n0,1\n1,3\n", {"1": T2, "2": ema(1, 3)}),
    Messy("preamble-as-wide", "Station,Y\nOwner,me\ntime,temp\n0,1\n1,3\n",
        {"time": T2, "temp": ema(1, 3)}, ("temp",)),
    Messy("comments", "# a\n# b, c\n" + TABLE, {"temp": ema(1, 3)}, ("temp",)),
    Messy("comment-between", "t,v\n0,1\n# changed\n1,3\n", {"t": T2, "v": ema(1, 3)}, ("v",)),
    Messy("comment-row", "t,v\n0,1\n#1,99\n1,3\n", {"t": T2, "v": ema(1, 3)}),
    Messy("issue-numbers", "n,v\n#1,99\n#2,3\n", {"v": ema(99, 3)}, ("n",)),
    Messy("excel-errors", "v,w\n1,1\n#REF!,5\n3,3\n", {"v": ema(1, None, 3), "w": ema(1, 5, 3)}, ("v",)),
    Messy("short-rows", "t,a,b\n0,1,2\n1,3\n2,4,5\n",
        {"t": ema(0, 1, 2), "a": ema(1, 3, 4), "b": ema(2, None, 5)}),
    Messy("trailing-delimiter", "A,B,C\n1,4,7,\n2,5,9,\n",
        {"A": ema(1, 2), "B": ema(4, 5), "C": ema(7, 9)}, ("C",)),
    Messy("unquoted-delimiter", "t,what,v\n0,a,1\n1,b, c,2\n2,d,3\n", {"t": ema(0, 1, 2), "v": ema(1, 2, 3)}),
    Messy("semicolons", "d;v\n1;15\n2;25\n", {"d": D2, "v": ema(15, 25)}, ("v",)),
    Messy("semicolons-commas", "d;v\n1;1,5\n2;2,5\n", {"d": D2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("semicolons-alone", "1;15\n2;25\n3;35\n", {"1": ema(1, 2, 3), "2": ema(15, 25, 35)}),
    Messy("given-semicolons", "d;v\n1;1,5\n2;2,5\n", {"d": D2, "v": ema(1.5, 2.5)}, ("v",), ("-d", ";")),
    Messy("german", "Ort;Köln\nStand;2021\n\nZeit;Wert;Ort\n10:00;1.234,5;A\n11:00;2,5;B\n",
        {"Wert": ema(1234.5, 2.5)}),
    Messy("tabs", "d\tv\n1\t15\n2\t25\n", {"d": D2, "v": ema(15, 25)}, ("v",)),
    Messy("spaces", "   d     v\n   1  15.5\n  22   2.5\n", {"d": ema(1, 22), "v": ema(15.5, 2.5)}, ("v",)),
    Messy("bars", "d|v\n1|15\n2|25\n", {"d": D2, "v": ema(15, 25)}),
    Messy("unit", "t,v\n0,1.5 °C\n1,2.5 °C\n", {"t": T2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("unit-cp1252", "t,v\n0,1.5 °C\n1,2.5 °C\n".encode("cp1252"), {"t": T2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("two-units", "t,v\n0,1.5 mm\n1,2.5 cm\n", {"t": T2, "v": ema(1.5, 25)}, ("v",)),
    Messy("thousands-of", "t,v\n0,1.5K\n1,1.2M\n", {"t": T2, "v": ema(1500, 1.2e6)}, ("v",)),
    Messy("thousands-alone", "t,v\n0,1.5K\n1,2K\n", {"t": T2, "v": ema(1500, 2000)}, ("v",)),
    Messy("debit", "t,v\n0,1.5 DR\n1,2 CR\n", {"t": T2, "v": ema(-1.5, 2)}, ("v",)),
    Messy("brackets", "t,v\n0,(5.00)\n1,2.00\n", {"t": T2, "v": ema(-5, 2)}, ("v",)),
    Messy("behind-minus", "t,v\n0,5.00-\n1,2.00\n", {"t": T2, "v": ema(-5, 2)}, ("v",)),
    Messy("typographic-minus", "t,v\n0,−5\n1,2\n", {"t": T2, "v": ema(-5, 2)}, ("v",)),
    Messy("west", "t,v\n0,5.5W\n1,2.5W\n", {"t": T2, "v": ema(-5.5, -2.5)}, ("v",)),
    Messy("censored", "t,v\n0,<0.5\n1,2\n", {"t": T2}, ("v",)),
    Messy("dollars", 't,v\n0,"$1,010.50"\n1,"$2,000.00"\n', {"t": T2, "v": ema(1010.5, 2000)}, ("v",)),
    Messy("per-cent", "t,v\n0,-0.61%\n1,0.40%\n", {"t": T2, "v": ema(-0.61, 0.4)}, ("v",)),
    Messy("grouped", 't,v\n0,"1,200"\n1,"2,400"\n2,900\n',
        {"t": ema(0, 1, 2), "v": ema(1200, 2400, 900)}, ("v",)),
    Messy("grouped-or-not", 't,v\n0,"1,201"\n1,"2,402"\n', {"t": T2}, ("v",)),
    Messy("grouped-or-not-semicolon", "t;v\n0;1,201\n1;2,402\n", {"t": T2}, ("v",), ("-d", ";")),
    Messy("decimals-of-three", "t;v\n0;1,201\n1;0,402\n",
        {"t": T2, "v": ema(1.201, 0.402)}, ("v",), ("-d", ";")),
    Messy("grouped-by-points", "t;v\n0;1.234.567\n1;2.345\n",
        {"t": T2, "v": ema(1234567, 2345)}, ("v",), ("-d", ";")),
    Messy("grouped-by-spaces", "t;v\n0;1\u202f234\n1;12\u00a0345,5\n",
        {"t": T2, "v": ema(1234, 12345.5)}, ("v",), ("-d", ";")),
    Messy("swiss", "t,v\n0,1'234.50\n1,2'345.50\n", {"t": T2, "v": ema(1234.5, 2345.5)}, ("v",)),
    Messy("indian", 't,v\n0,"1,00,000"\n1,"2,00,000"\n', {"t": T2, "v": ema(1e5, 2e5)}, ("v",)),
    Messy("underscores", "t,v\n0,1_000\n1,2_000\n", {"t": T2, "v": ema(1000, 2000)}, ("v",)),
    Messy("dash", "t,v\n0,1\n1,-\n2,3\n", {"t": ema(0, 1, 2), "v": ema(1, None, 3)}, ("v",)),
    Messy("states", "t,v\n0,20.0\n1,unavailable\n2,unknown\n3,22\n",
        {"t": ema(0, 1, 2, 3), "v": ema(20, None, None, 22)}, ("v",)),
    Messy("state-first", "t,v\n0,unavailable\n1,20\n2,22\n",
        {"t": ema(0, 1, 2), "v": ema(None, 20, 22)}, ("v",)),
    Messy("infinite", "t,v\n0,1\n1,inf\n2,3\n", {"t": ema(0, 1, 2)}, ("v",)),
    Messy("hexadecimal", "t,v\n0,1\n1,0x1F\n", {"t": T2, "v": ema(1, 31)}, ("v",)),
    Messy("roman", "t,v\n0,1\n1,XII\n", {"t": T2, "v": ema(1, 12)}, ("v",)),
    Messy("booleans", "t,v\n0,1\n1,true\n", {"t": T2, "v": ema(1, 1)}, ("v",)),
    Messy("clock", "t,v\n0,00:01:30\n1,00:02:00\n", {"t": T2, "v": ema(90, 120)}, ("v",)),
    Messy("dates", "t,v\n0,2021-01-01\n1,2021-01-02\n", {"t": T2}, ("v",)),
    Messy("unit-row", "time,temp\n[s],[degC]\n0,1\n1,3\n", {"time": T2, "temp": ema(1, 3)}, ("temp",)),
    Messy("data-logger", TOA5, {"RECORD": T2, "AirTC": ema(1.5, 2.5), "RH": ema(80, None)}, ("AirTC",)),
    Messy("json-array", '[{"a":1},{"a":3}]\n', {"a": ema(1, 3)}),
    Messy("json-document", '{\n "best": null,\n "log_history": [\n  {"loss": 1},\n  {"loss": 3}\n ]\n}\n',
        {"loss": ema(1, 3)}),
    Messy("json-lines", '{"a":1}\n{"a":3}\n', {"a": ema(1, 3)}),
    Messy("html", "\n<!DOCTYPE html>\n<html><body><table><tr><td>1</td></tr></table></body></html>\n", {}),
    Messy("xml", '<?xml version="1.0"?>\n<rows><v>1</v></rows>\n', {}),
    Messy("utf-16", "a,b\n1,2\n3,4\n".encode("utf-16"), {"a": ema(1, 3), "b": ema(2, 4)}),
    Messy("utf-16-bare", "a,b\n1,2\n3,4\n".encode("utf-16-le"), {"a": ema(1, 3), "b": ema(2, 4)}),
    Messy("workbook", b"PK\x03\x04\x14\0\x06\0\x08\0[Content_Types].xml" + bytes(40), {}),
    Messy("old-mac", "a,b\r1,2\r3,4\r", {"a": ema(1, 3), "b": ema(2, 4)}),
    Messy("misspelt", "day,price\n1,2\n2,4\n", {"day": D2, "price": ema(2, 4)}, ("pryce",)),
    Messy("nameless", "a,\n1,2\n3,4\n", {"a": ema(1, 3), "": ema(2, 4)}, ("b",)),
    Messy("cp1252-name", "i,T [°C]\n1,1\n2,3\n".encode("cp1252"), {"i": D2, "T [°C]": ema(1, 3)}, ("T [C]",)),
    Messy("quote-open", 'a,b\n1,2\n3,"4\n', {"a": ema(1, 3), "b": ema(2, 4)}),
    Messy("twice", "v,v\n1,2\n3,4\n", [{"v": ema(1, 3)}, {"v": ema(2, 4)}], ("v",)),
    Messy("total", "day,v\n1,2\n2,4\nTotal,6\n", {"day": D2, "v": ema(2, 4)}),
    Messy("footnote", "day,v\n1,2\n2,4\n\nSource: somewhere, 2021\n", {"day": D2, "v": ema(2, 4)}),
    Messy(
        "psql",
        " id | value \n----+-------\n  1 |   1.5\n  2 |   2.5\n(2 rows)\n",
        {" value ": ema(1.5, 2.5), " id ": ema(1, 2)},
    ),
    Messy("markdown", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n", {" a ": ema(1, 3), " b ": ema(2, 4)}),
    Messy("quoted-lines", '"a,b"\n"1,2"\n"3,4"\n', {"a": ema(1, 3), "b": ema(2, 4)}, ("1",)),
    Messy("database-null", "t,v\n0,1\n1,\\N\n2,3\n", {"t": ema(0, 1, 2), "v": ema(1, None, 3)}),
    Messy("text", "a,b\nx,y\n", {}),
    Messy("bank-preamble", BANK, {"Saldo": ema(1234.56, 1279.76), "Betrag": ema(-45.2, 2500)}, ("Betrag",)),
    Messy("booting", "Booting...\nSensor ok\n1023,5\n1022,7\n", {"1": ema(1023, 1022), "2": ema(5, 7)}),
    Messy("headless-spaces", "10:15:01 -> 21.5\n10:15:02 -> 22.5\n", {"3": ema(21.5, 22.5)}),
    Messy("metrics", METRICS, {"2": ema(1027, 3), "3": ema(1395066363000, 1395066363000)}),
    Messy("annotated", INFLUX, {"table": ema(0, 0, 1), "_value": ema(20.5, 21.5, 10.5)}, ("_value",)),
    Messy("unit-row-tab", "DATAH\tt\tCO2\nDATAU\ts\tppm\nDATA\t1\t410.5\nDATA\t2\t411.5\n",
        {"t": D2, "CO2": ema(410.5, 411.5)}, ("CO2",)),
    Messy("row-names", '"mpg" "cyl"\n"Mazda RX4" 21 6\n"Datsun 710" 22.8 4\n',
        {"2": ema(21, 22.8), "3": ema(6, 4)}, ("mpg",)),
    Messy("row-names-tab", "mpg\tcyl\nMazda RX4\t21\t6\nDatsun\t22.8\t4\n",
        {"2": ema(21, 22.8), "3": ema(6, 4)}, ("mpg",)),
    Messy("sar", SAR, {"%user": ema(1.5, 2.5), "%idle": ema(98, 97)}, ("%user",)),
    Messy("sqlite-column", "id  v  \n--  ---\n1   2.5\n2   3.5\n", {"id": D2, "v": ema(2.5, 3.5)}, ("v",)),
    Messy("psql-unaligned", "id|v\n1|1.5\n2|2.5\n(2 rows)\n", {"id": D2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("fixed-width", "STN   TEMP   DEWP\n0123  45.5   40.1\n0123         41.1\n", {}),
    Messy("brackets-alone", 'i,v\nA,"(1,234.50)"\nB,500.00\n', {"v": ema(-1234.5, 500)}, ("v",)),
    Messy("minus-behind", "i|v\nA|1.234,50-\nB|500,00\n", {"v": ema(-1234.5, 500)}, ("v",)),
    Messy("minus-before-unit", "t,v\n0,$5.50\n1,-$2.50\n", {"t": T2, "v": ema(5.5, -2.5)}, ("v",)),
    Messy("indian-mixed", 't,v\n0,"1,23,456.00"\n1,"5,000.00"\n', {"t": T2, "v": ema(123456, 5000)}, ("v",)),
    Messy("rupees", 't,v\n0,"₹ 99,999.00"\n1,₹ 5.00\n', {"t": T2, "v": ema(99999, 5)}, ("v",)),
    Messy("formula", 't,v\n0,="1.5"\n1,="2.5"\n', {"t": T2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("apostrophes", "t,v\n0,'1.5\n1,'2.5\n", {"t": T2, "v": ema(1.5, 2.5)}, ("v",)),
    Messy("buoy", BUOY, {**{str(k + 1): ema(v, v) for k, v in enumerate((2024, 1, 1))}, "4": ema(0, 10),
        "5": ema(5, 6), "6": ema(None, 1.2), "#YY": ema(2024, 2024), "MM": ema(1, 1), "DD": ema(1, 1),
        "mm": ema(0, 10), "WSPD": ema(5, 6), "WVHT": ema(None, 1.2)}, ("WSPD",)),
    Messy("types-row", "#x\nby\tq\n5s\t14n\nUSGS\t5000\nUSGS\t5100\n", {"q": ema(5000, 5100)}, ("q",)),
    Messy("footer-of-two", "t,u,v\n0,5,1\n1,5,3\n\nv: values\nSource (c) me, 2021\n",
        {"t": T2, "u": ema(5, 5), "v": ema(1, 3)}),
    Messy("blank-at-end", "t,v\n0,1\n1,3\n   \n", {"t": T2, "v": ema(1, 3)}),
    Messy("fortran", "t v\n0 1.5D+03\n1 2.5D-01\n", {"t": T2, "v": ema(1500, 0.25)}, ("v",)),
    Messy("some-per-cent", "t,v\n0,5%\n1,0.07\n", {"t": T2, "v": ema(5, 7)}, ("v",)),
    Messy("per-cent-and-zero", "t,v\n0,5%\n1,0\n", {"t": T2, "v": ema(5, 0)}, ("v",)),
    Messy("binary-units", "t,v\n0,950 MiB\n1,1.5 GiB\n", {"t": T2, "v": ema(950, 1536)}, ("v",)),
    Messy("single-quotes", "'t','v'\n'0','1.5'\n'1','2.5'\n", {"'t'": T2, "'v'": ema(1.5, 2.5)}, ("v",)),
    Messy("no-break-space", "t,v\n0,\u00a0\n1,2.5\n", {"t": T2, "v": ema(None, 2.5)}, ("v",)),
    Messy("end-of-file-sign", "t,v\n0,1\n1,3\n\x1a", {"t": T2, "v": ema(1, 3)}, ("v",)),
    Messy("power-cut", b"t,v\n0,1\n1,3\n" + bytes(40), {"t": T2, "v": ema(1, 3)}, ("v",)),
    Messy("nul-cell", b"t,v\n0,1\n1,\0\n2,3\n", {"t": ema(0, 1, 2), "v": ema(1, None, 3)}, ("v",)),
    Messy("comment-beside", "t,v\n0,1\n// note, again\n1,3\n", {"t": T2, "v": ema(1, 3)}, ("v",)),
    Messy("second-table", "a,b\n1,2\n3,4\n\nc,d\n5,6\n", {}, ("b",)),
    Messy("utf-16-bare-tab", "日\t値\r\n1\t2\r\n3\t4\r\n".encode("utf-16-le"),
        {"日": ema(1, 3), "値": ema(2, 4)}),
    Messy("tar", TAR, {"a": ema(1, 3)}),
    Messy("compressed-twice", gzip.compress(gzip.compress(b"a\n1\n3\n")), {"a": ema(1, 3)}),
    Messy("json-commas", '{"a":1},\n{"a":3},\n', {"a": ema(1, 3)}),
    Messy("json-lists", "[1,2]\n[3,4]\n", {"1": ema(1, 3), "2": ema(2, 4)}),
    Messy("json-list-of-lists", "[[1,2],\n[3,4]]\n", {"1": ema(1, 3), "2": ema(2, 4)}),
    Messy("json-scalars", "[1,\n3]\n", {"1": ema(1, 3)}),
    Messy("json-concatenated", '{"a":1}{"a":3}\n', {"a": ema(1, 3)}),
    Messy("json-without-rows", '{\n "Note": "too many calls"\n}\n', {}),
    Messy("json-columns", '{"h":{"t":[0,1],"v":[1.5,2.5]}}', {"t": T2, "v": ema(1.5, 2.5)}, (), JSON),
    Messy("json-features", '{"type":"x","features":[{"mag":4},{"mag":5}]}', {"mag": ema(4, 5)}, (), JSON),
    Messy("json-quoted", '{"t":0,"v":"1,234.5"}\n{"t":1,"v":"2,000.5"}\n',
        {"t": T2, "v": ema(1234.5, 2000.5)}, ("v",), JSON),
    Messy("json-boolean", '{"v":1}\n{"v":true}\n', {}, ("v",), JSON),
    Messy("json-utf-16", '{"v":1}\n{"v":3}\n'.encode("utf-16"), {"v": ema(1, 3)}, (), JSON),
]  # fmt: skip
# Those of which the hints lead to the end.
GET_IN = {
    *("bank-preamble", "booting", "headless-spaces", "metrics", "annotated", "unit-row-tab", "row-names"),
    *("row-names-tab", "sar", "sqlite-column", "psql", "psql-unaligned", "rupees", "per-cent-and-zero"),
    *("single-quotes", "no-break-space", "end-of-file-sign", "power-cut", "nul-cell", "comment-beside"),
    *("utf-16-bare-tab", "tar", "compressed-twice", "json-commas", "json-lists", "json-list-of-lists"),
    *("quoted-lines", "apostrophes", "buoy", "types-row", "footer-of-two", "blank-at-end"),
    *("json-scalars", "json-concatenated", "json-columns", "json-features", "json-quoted", "json-utf-16"),
}
# What is right for golden cases whose hints, followed, end well; worked out by hand.
_BROKER: Values = {"Price": [1010.0, 1015.0, 1002.5], "Change %": [-0.61, -0.105, 0.4475]}
_PRICES: Values = {"price": [1.5, 2.0, None, None]}
# Several where a hint says which of them is meant when.
GOLDEN: dict[str, Values | list[Values]] = {
    "advice_broker": _BROKER,
    "advice_broker_price": _BROKER,
    "advice_comment_between": {"v": [1.0, 2.0]},
    "advice_comment_row": {"t": [0.0, 1.0]},
    "advice_comments": {"temp": [1.0, 2.0]},
    "advice_home_states": {"state": [20.0, None, None, 35.0, 28.5]},
    "advice_thousands": {"vol": [1200.0, 1800.0, 1350.0]},
    "advice_thousands_default": {"day": [1.0, 1.5, 2.25], "vol": [1200.0, 1800.0, 1350.0]},
    "advice_trailing_delimiter": {"C": [7.0, 8.0]},
    "error_annotations": {"table": [0.0, 0.0], "_value": [20.5, 21.0]},
    "error_bad_cell": _PRICES,
    "error_bad_time": {"v": [1.0, None]},
    "error_day_first": {"v": [1.0, 2.0]},
    "error_decimal_comma": {"a": [1.5]},
    "error_late": [{"loss": [4.0, 3.0, 100.0, 50.5]}, {"loss": [4.0, 3.0, None, 2.0]}],
    "error_missing_error": _PRICES,
    "error_month_or_day_first": {"v": [1.0, 2.0]},
    "error_name_of_two": {"a_smooth": [1.0, 1.75, None, 2.875, 2.9375, 2.46875]},
    "error_name_taken": {"a": [1.0]},
    "error_newest_first": {"close": [32.5, 25.0, 20.0]},
    "error_no_folder": {"a": [1.0], "b": [2.0]},
    "error_no_weight": {"price": [1.5, 1.6, None, None]},
    "error_ragged": {"a": [1.0, 2.0], "b": [2.0, None]},
    "error_time_unit": {"v": [1.0, 1.5]},
    "error_tsv_named_csv": {"a": [1.0]},
    "error_unsorted": {"v": [1.5, 2.0]},
    "error_wrong_delimiter": {"a": [1.0, 1.1]},
    "error_wrong_delimiter_decimal": {"a": [1.5]},
    "semicolon_left_out": {"d": [1.0, 1.5], "v": [1.5, 2.0]},
    "semicolon_named": {"v": [1.5, 2.0]},
}


def printed(path: Path) -> Values:
    """The averages that a golden case prints in its last column."""
    lines = [line.rpartition(",")[2] for line in sections(path.read_text())["stdout"].splitlines()]
    return {lines[0].removesuffix("_ema"): [float(cell) if cell else None for cell in lines[1:]]}


# Whoever does without the stop at a missing cell gets what another case has.
GOLDEN |= {
    path.stem: printed(path.with_stem(path.stem.replace("error", "skip")))
    for path in CASES
    if path.stem.startswith("missing_error_")
}


def arity() -> dict[str, int]:
    """How many values each option takes."""
    return {
        name: 0 if param.is_flag or param.count else param.nargs
        for param in command.params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }


def hints_of(err: str) -> list[str]:
    return re.findall(r"^  try: (.*)$", err, re.MULTILINE)


def alternatives(hint: str, columns: Sequence[str]) -> Iterator[list[str]]:
    """The runs of options in a hint, each to be added; a placeholder for a column is each of them."""
    takes, run = arity(), list[str]()
    tokens = re.findall(r"\$'(?:[^'\\]|\\.)*'|'[^']*'|\"[^\"]*\"|[^\s]+", hint)
    while tokens:
        token = tokens.pop(0)
        if token.rstrip(":;,") in takes and len(token) > 1:
            name = token.rstrip(":;,")
            values = [tokens.pop(0) for _ in range(takes[name]) if tokens]
            run += [name, *(value_of(value) for value in values)]
            if not values or not values[-1].endswith((":", ";")) or len(values[-1]) == 1:
                continue
        if run:
            yield from filled(run, columns)
        run = []
    if run:
        yield from filled(run, columns)


def value_of(token: str) -> str:
    """A value as a shell has it, without the punctuation of the sentence behind it."""
    if token.startswith("$'"):
        return token[2:-1].encode().decode("unicode_escape")
    if token[0] in "'\"":
        return token[1:-1]
    return token.rstrip(":;") if len(token) == 2 else token.rstrip(":;,") or token


def filled(run: list[str], columns: Sequence[str]) -> Iterator[list[str]]:
    if "COLUMN" in run:
        for column in columns:
            yield [column if part == "COLUMN" else part for part in run]
    elif not PLACEHOLDERS.intersection(run):
        yield run


class Follower:
    """Runs a command, and whatever its hints say, until nothing more is said."""

    def __init__(self, shop: Workshop, right: Values | list[Values]) -> None:
        self.shop, self.rights = shop, right if isinstance(right, list) else [right]
        self.out = shop.folder / "out.parquet"
        self.got_in = False

    def follow(self, arguments: list[str], steps: int = STEPS) -> None:
        code, said = self.run(arguments)
        context = f"{shlex.join(arguments)}\n{said}"
        assert code in (0, 1, 2), context
        if code == 0:
            self.check(context)
        for hint in hints_of(said) if steps else []:
            for more in alternatives(hint, list(self.rights[0])):
                if not set_already(arguments, more):
                    self.follow([*arguments, *more], steps - 1)
            if "| ema-smooth" in hint:
                self.pipe(hint, arguments, steps)

    def pipe(self, hint: str, arguments: list[str], steps: int) -> None:
        """Run the pipeline of a hint, and go on with what comes out of it."""
        line, _, options = hint.partition("| ema-smooth")
        if "'select" in line:  # which only those who know the tables can say
            return
        if not shutil.which(program := line.split()[0]):
            pytest.skip(f"{program}, which a hint asks for, is not here")
        done = subprocess.run(["bash", "-c", line], cwd=self.shop.folder, capture_output=True, check=False)
        self.shop.write("piped", done.stdout)
        _, *rest = arguments
        self.follow(["piped", *shlex.split(options.replace("...", "")), *rest], steps - 1)

    def run(self, arguments: list[str]) -> tuple[int, str]:
        """The exit code, and what is said; the new columns go to `out`."""
        self.out.unlink(missing_ok=True)
        try:
            with command.make_context("ema-smooth", list(arguments)) as context:
                job = replace(make_job(context.params), only=True, output=str(self.out), target="parquet")
                return 0, "\n".join(run(job).notes)
        except click.UsageError as error:
            return 2, error.format_message()
        except EmaError as error:
            return error.exit_code, str(error)

    def check(self, context: str) -> None:
        """Every new column holds what is right for it."""
        found = averages(self.out)
        self.got_in = self.got_in or bool(found)
        assert any(agree(found, right) for right in self.rights), f"{context}\n{found}"


def agree(found: Values, right: Values) -> bool:
    """Whether every column is right; blank rows at the end, such as footnotes, are no values."""
    for name, values in found.items():
        there = right.get(name, [])
        padded = there + [None] * (len(values) - len(there))
        if name not in right or values != [None if x is None else pytest.approx(x) for x in padded]:
            return False
    return True


def set_already(arguments: list[str], more: list[str]) -> bool:
    """Whether following would only say again what has been said."""
    text = "\0".join(arguments)
    return "\0".join(more) in text


def averages(path: Path) -> Values:
    """The new columns of a Parquet output by the names of those they are of."""
    table = pq.read_table(path)
    columns = zip(table.column_names, table.columns, strict=True)
    return {
        name.removesuffix("_ema"): column.to_pylist() for name, column in columns if name.endswith("_ema")
    }


@pytest.mark.parametrize("messy", MESSY, ids=lambda messy: messy.name)
def test_hints_of_messy_files(messy: Messy, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    shop.write("m.csv", messy.text)
    follower = Follower(shop, messy.right)
    follower.follow(["m.csv", *ALPHA, *messy.options])
    for column in messy.columns:
        follower.follow(["m.csv", *ALPHA, *messy.options, "-c", column])
    assert follower.got_in or messy.name not in GET_IN


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_hints_of_golden_cases(path: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.folder)
    case = sections(path.read_text())
    if "  try: " not in case["stderr"] or not any(name.startswith("file ") for name in case):
        return
    for name, text in case.items():
        if name.startswith("file "):
            shop.write(name.removeprefix("file "), unescape(text))
    Follower(shop, GOLDEN.get(path.stem, {})).follow(shlex.split(case["command"])[1:])
