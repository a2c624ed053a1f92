"""Short texts in several languages and writings, made up for the tests."""

GERMAN = (
    "Während die Bäckerei früh öffnet, übt die Schülerin für ihre Prüfung. Später fährt sie über die Brücke nach "
    "Köln, wo ihr großer Bruder Äpfel verkauft. Es heißt, die schönsten Früchte hängen höher als jede Leiter. "
)
RUSSIAN = (
    "Утром мальчик вышел из дома и увидел на дороге старую лошадь. Она медленно шла к реке, а за ней бежала собака. "
    "Вечером отец рассказал, что эта лошадь живёт у соседа уже двадцать лет и никого не боится. "
)
JAPANESE = (
    "昨日は友達と一緒に山へ登りました。天気がとても良くて、頂上からは海が見えました。帰りに小さな店で温かいうどんを食べました。"
    "店の人は親切で、道も教えてくれました。"
)
CHINESE = (
    "春天来了，公园里的花都开了。孩子们在草地上放风筝，老人坐在树下聊天。中午的时候下了一点小雨，大家都跑到亭子里避雨。"
    "雨停以后，天空中出现了一道美丽的彩虹。"
)
KOREAN = (
    "어제 저녁에 우리 가족은 강가를 따라 오래 걸었습니다. 바람이 시원하게 불었고 하늘에는 별이 많이 보였습니다. "
    "집에 돌아와서 따뜻한 차를 마시며 이야기를 나누었습니다. "
)
