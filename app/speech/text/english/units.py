"""Units as they are written and said, and what stands behind "per"."""

from __future__ import annotations

UNITS: dict[str, tuple[str, str]] = {}


def _add(listed: str) -> None:
    for entry in listed.split("; "):
        names, _, words = entry.partition("=")
        one, _, many = words.partition("|")
        for name in names.split():
            UNITS[name] = (one, many or f"{one}s")


_add(
    "km=kilometer; m=meter; cm=centimeter; mm=millimeter; nm=nanometer; µm μm=micrometer; mi=mile; yd yds=yard; "
    "ft=foot|feet; in=inch|inches; kg=kilogram; g=gram; mg=milligram; µg μg mcg=microgram; lb lbs=pound; oz=ounce; "
    "t=ton; L l=liter; ml mL=milliliter; cl=centiliter; dl=deciliter; gal=gallon; tbsp=tablespoon; tsp=teaspoon; "
    "h hr hrs=hour; min mins=minute; s sec secs=second; ms=millisecond; µs μs=microsecond; ns=nanosecond; wk wks=week; "
    "yr yrs=year; mo mos=month; B=byte; KB kB=kilobyte; MB=megabyte; GB=gigabyte; TB=terabyte; PB=petabyte;"
    " KiB=kibibyte; "
    "MiB=mebibyte; GiB=gibibyte; TiB=tebibyte; kb Kb=kilobit; Mb=megabit; Gb=gigabit; bps=bit per"
    " second|bits per second; "
    "kbps Kbps=kilobit per second|kilobits per second; Mbps=megabit per second|megabits per second; "
    "Gbps=gigabit per second|gigabits per second; "
    "Tbps=terabit per second|terabits per second; ppl=people|people; "
    "Hz=hertz|hertz; kHz KHz=kilohertz|kilohertz; MHz=megahertz"
    "|megahertz; "
    "GHz=gigahertz|gigahertz; W=watt; kW=kilowatt; MW=megawatt; GW=gigawatt; Wh=watt hour; kWh=kilowatt hour; "
    "MWh=megawatt hour; V=volt; kV=kilovolt; mV=millivolt; A=amp; mA=milliamp; mAh=milliamp hour; Ah=amp hour; "
    "J=joule; kJ=kilojoule; cal=calorie; kcal=kilocalorie; N=newton; Pa=pascal; kPa=kilopascal; hPa=hectopascal; "
    "MPa=megapascal; bar=bar; psi=P S I|P S I; mph=mile per hour|miles per hour; kph kmh=kilometer"
    " per hour|kilometers per hour; "
    "kn=knot; rpm RPM=R P M|R P M; bpm BPM=beat per minute|beats per minute; fps FPS=frame per second"
    "|frames per second; "
    "dB=decibel; dBA=decibel A|decibels A; px=pixel; pt pts=point; dpi DPI=dot per inch|dots per inch; "
    "hp=horsepower|horsepower; mpg MPG=mile per gallon|miles per gallon; Nm N·m=newton meter; "
    "mmHg=millimeter of mercury|millimeters of mercury; µl μl=microliter; cc=C C|C C; "
    "MP=megapixel; ha=hectare; ac=acre; ppm=part per million|parts per million; K=K|K; Ω=ohm; kΩ=kilohm; "
    "sq=square|square; doz=dozen|dozen; mol=mole; mmol=millimole; µmol μmol=micromole; nmol=nanomole; GPa=gigapascal; "
    "kN=kilonewton; mW=milliwatt; TWh=terawatt hour; MJ=megajoule; GJ=gigajoule; µA μA=microamp; pF=picofarad; "
    "nF=nanofarad; µF μF=microfarad; mT=millitesla; mSv=millisievert; MeV=megaelectronvolt; keV=kiloelectronvolt; "
    "eV=electronvolt; lm=lumen; lx=lux|lux"
)

DENOMINATORS = {
    "h": "hour",
    "hr": "hour",
    "hour": "hour",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "day": "day",
    "d": "day",
    "week": "week",
    "month": "month",
    "mo": "month",
    "year": "year",
    "yr": "year",
    "kg": "kilogram",
    "L": "liter",
    "l": "liter",
    "m": "meter",
    "km": "kilometer",
    "lb": "pound",
    "100g": "hundred grams",
    "100km": "hundred kilometers",
    "100 km": "hundred kilometers",
    "m²": "square meter",
    "m2": "square meter",
    "m³": "cubic meter",
    "m3": "cubic meter",
    "dL": "deciliter",
    "mL": "milliliter",
    "ml": "milliliter",
    "cm²": "square centimeter",
    "s²": "second squared",
    "s^2": "second squared",
    "mol": "mole",
    "gal": "gallon",
    "µL": "microliter",
    "s2": "second squared",
}
DENOMINATORS |= {
    f"{unit}{power}": f"{shape} {name}"
    for unit, name in (("m", "meter"), ("cm", "centimeter"), ("mm", "millimeter"), ("km", "kilometer"), ("ft", "foot"))
    for shape, powers in (("square", ("²", "2", "^2")), ("cubic", ("³", "3", "^3")))
    for power in powers
}
