"""A set that is no recipes: 300 instructions for the care of house plants, in Indonesian.

`rows()` puts them together from facts about 30 plants and ten tasks, worded in several ways, with
columns named as their author liked.
"""

import itertools
import random

# days between waterings, light, potting mix, way to propagate, common pest
PLANTS = {
    "Monstera": (7, "terang tanpa matahari langsung", "perlit", "setek batang", "trips"),
    "Lidah Mertua": (21, "redup sampai terang", "pasir malang", "setek daun", "kutu putih"),
    "Sirih Gading": (7, "teduh", "sekam bakar", "setek batang", "kutu putih"),
    "Anggrek Bulan": (7, "terang tersaring", "pakis cacah", "pisah keiki", "kutu perisai"),
    "Lidah Buaya": (14, "matahari pagi", "pasir malang", "pisah anakan", "kutu putih"),
    "Kuping Gajah": (5, "teduh lembap", "pakis cacah", "pisah rumpun", "tungau"),
    "Keladi": (3, "terang tersaring", "sekam bakar", "pisah umbi", "ulat"),
    "Aglonema": (5, "teduh", "sekam bakar", "pisah anakan", "kutu putih"),
    "Karet Kebo": (7, "terang", "perlit", "cangkok", "kutu perisai"),
    "Palem Kuning": (5, "terang tersaring", "pasir malang", "pisah rumpun", "tungau"),
    "Suplir": (2, "teduh lembap", "pakis cacah", "pisah rumpun", "kutu daun"),
    "Begonia": (4, "terang tersaring", "perlit", "setek daun", "tepung jamur"),
    "Kaktus Koboi": (21, "matahari penuh", "pasir malang", "setek batang", "kutu putih"),
    "Sukulen Giok": (14, "matahari pagi", "batu apung", "setek daun", "kutu putih"),
    "Pakis Boston": (3, "teduh lembap", "cocopeat", "pisah rumpun", "kutu perisai"),
    "Calathea": (4, "teduh lembap", "cocopeat", "pisah rumpun", "tungau"),
    "Philodendron": (7, "terang tersaring", "perlit", "setek batang", "trips"),
    "Spider Plant": (6, "terang tersaring", "sekam bakar", "pisah anakan", "kutu daun"),
    "Peace Lily": (5, "teduh", "cocopeat", "pisah rumpun", "kutu putih"),
    "Dracaena": (10, "teduh", "perlit", "setek batang", "tungau"),
    "Zamia": (18, "redup sampai terang", "pasir malang", "setek daun", "kutu perisai"),
    "Kalanchoe": (12, "matahari pagi", "batu apung", "setek batang", "kutu daun"),
    "Hoya": (9, "terang tersaring", "pakis cacah", "setek batang", "kutu daun"),
    "Bromelia": (7, "terang tersaring", "pakis cacah", "pisah anakan", "kutu perisai"),
    "Tanduk Rusa": (5, "teduh lembap", "lumut sphagnum", "pisah anakan", "kutu perisai"),
    "Puring": (4, "matahari penuh", "sekam bakar", "cangkok", "tungau"),
    "Krokot Hias": (3, "matahari penuh", "pasir malang", "setek batang", "ulat"),
    "Mawar Mini": (2, "matahari penuh", "sekam bakar", "setek batang", "kutu daun"),
    "Melati": (2, "matahari penuh", "sekam bakar", "setek batang", "ulat"),
    "Kamboja Jepang": (7, "matahari penuh", "pasir malang", "sambung pucuk", "tungau"),
}
# task -> things needed, then steps: one of each group of wordings is drawn
TASKS = {
    "Menyiram": (
        ["{ml} ml air", "1 gembor", "1 tusuk kayu", "1 tatakan"],
        ["Tusuk tanah sedalam 3 cm.|Periksa dulu media dengan tusuk kayu.|Raba bagian atas pot."],
        ["Siram setiap {days} hari.|Beri air kalau sudah {days} hari kering.|Tunggu {days} hari."],
        ["Berhenti saat air menetes.|Siram pelan sampai merata.|Jangan basahi tajuknya."],
        ["Buang sisa di tatakan.|Kosongkan tatakan sesudah 10 menit.|Angkat pot, biarkan tiris."],
    ),
    "Mengganti Pot": (
        ["1 pot 20 cm", "2 liter tanah", "500 g {mix}", "1 sekop kecil"],
        ["Campur tanah dan {mix}.|Aduk {mix} dengan tanah kebun.|Siapkan media dari {mix}."],
        ["Keluarkan tanaman dari pot lama.|Balik potnya, tahan batangnya.|Longgarkan sisi pot."],
        ["Potong akar busuk.|Urai akar yang melingkar.|Kibaskan tanah lama."],
        ["Tanam setinggi semula.|Isi sampai 2 cm di bawah bibir pot.|Padatkan pelan-pelan."],
    ),
    "Memupuk": (
        ["5 g pupuk NPK", "1 liter air", "1 sendok ukur", "1 gembor"],
        ["Larutkan pupuk dalam air.|Aduk 5 g pupuk sampai larut.|Encerkan setengah takaran."],
        ["Basahi media dulu.|Siram air biasa sehari sebelumnya.|Pastikan tanah lembap."],
        ["Tuang di tepi pot.|Jauhkan larutan dari batang.|Beri merata di sekeliling."],
        ["Ulangi bulan depan.|Cukup sekali dalam 30 hari.|Hentikan pada musim hujan."],
    ),
    "Memperbanyak": (
        ["1 pisau bersih", "1 pot kecil", "200 g {mix}", "1 botol alkohol"],
        ["Seka pisau dengan alkohol.|Sterilkan alat lebih dulu.|Pilih induk yang sehat."],
        ["Lakukan {way}.|Caranya {way}, pagi hari.|Pakai {way} pada bagian tua."],
        ["Tancapkan pada {mix}.|Tanam di {mix} lembap.|Letakkan di atas {mix}."],
        ["Tunggu akar 3 minggu.|Simpan di tempat teduh.|Jangan dipindah sebelum bertunas."],
    ),
    "Memangkas": (
        ["1 gunting tanaman", "1 lap kering", "1 kantong sampah"],
        ["Cari daun menguning.|Tandai cabang yang kering.|Lihat bagian yang rapat."],
        ["Gunting miring di atas ruas.|Potong dekat pangkal.|Sisakan dua ruas."],
        ["Bersihkan getahnya.|Lap bekas potongan.|Biarkan luka mengering."],
        ["Kumpulkan sisanya.|Letakkan lagi di tempat {light}.|Jangan siram hari itu."],
    ),
    "Mengatasi Hama": (
        ["1 liter air", "5 ml sabun cair", "1 botol semprot", "2 lembar kapas"],
        ["Pisahkan pot yang terserang.|Cari {pest} di balik daun.|Pastikan itu {pest}."],
        ["Campur sabun dan air.|Kocok larutan sabun.|Isi botol dengan air sabun."],
        ["Semprot balik daun.|Seka {pest} dengan kapas.|Basahi seluruh batang."],
        ["Ulangi tiap 4 hari.|Bilas sesudah satu jam.|Periksa lagi minggu depan."],
    ),
    "Menempatkan": (
        ["1 rak", "1 meteran", "1 tirai tipis"],
        ["Cari sudut {light}.|Pilih tempat {light}.|Ukur jarak dari jendela."],
        ["Beri jarak 30 cm.|Jauhkan dari AC.|Hindari angin langsung."],
        ["Pasang tirai tipis.|Putar pot seminggu sekali.|Naikkan ke rak."],
        ["Amati daun 10 hari.|Geser bila pucat.|Catat arah tumbuhnya."],
    ),
    "Membersihkan Daun": (
        ["1 lap lembut", "500 ml air hangat", "1 kuas kecil"],
        ["Tiup debu yang tebal.|Sapu debu dengan kuas.|Alasi meja dengan koran."],
        ["Basahi lap, lalu peras.|Celupkan lap ke air hangat.|Jangan pakai minyak."],
        ["Topang daun dari bawah.|Seka searah tulang daun.|Mulai dari daun tertua."],
        ["Keringkan di tempat {light}.|Ulangi sebulan sekali.|Ganti air kalau keruh."],
    ),
    "Menanam Bibit": (
        ["1 bibit", "1 pot 12 cm", "300 g {mix}", "1 liter tanah"],
        ["Lubangi dasar pot.|Rendam bibit 5 menit.|Ayak tanah lebih dulu."],
        ["Isi pot dengan {mix}.|Lapisi dasar dengan {mix}.|Campurkan {mix} dan tanah."],
        ["Tegakkan bibitnya.|Benamkan sampai leher akar.|Tekan di sekeliling batang."],
        ["Simpan di tempat {light}.|Siram sedikit.|Tutup plastik 3 hari."],
    ),
    "Meninggalkan": (
        ["1 baskom", "2 liter air", "1 tali katun"],
        ["Siram penuh sebelum pergi.|Pindahkan dari jendela.|Petik bunga yang layu."],
        ["Isi baskom dengan air.|Letakkan baskom lebih tinggi.|Kumpulkan semua pot."],
        ["Rentangkan tali ke media.|Tanam ujung tali 5 cm.|Basahi talinya dulu."],
        ["Cukup untuk {days} hari.|Minta tetangga menengok.|Pulang, buang airnya."],
    ),
}


def rows(seed: int = 7) -> list[dict[str, str]]:
    """tanaman dan tugas, perlengkapan, cara, jenis: things and steps are joined by "; "."""
    draw, found = random.Random(seed), []
    for (plant, facts), (task, (needs, *steps)) in itertools.product(PLANTS.items(), TASKS.items()):
        words = dict(zip(("days", "light", "mix", "way", "pest"), facts))
        words["ml"] = 50 * draw.randint(3, 12)
        chosen = [draw.choice(wordings.split("|")) for (wordings,) in steps]
        found.append(
            {
                "tanaman dan tugas": f"{task} {plant}",
                "perlengkapan": "; ".join(needs).format(**words),
                "cara": "; ".join(chosen).format(**words),
                "jenis": task,
            }
        )
    return found
